"""The states that a job of Slurm can be in, and which of them are the last."""

from enum import Enum


class State(Enum):
    """A state in Slurm's words, and two more for what Slurm does not say."""

    PENDING = "PENDING"
    CONFIGURING = "CONFIGURING"
    RUNNING = "RUNNING"
    COMPLETING = "COMPLETING"
    SUSPENDED = "SUSPENDED"
    STOPPED = "STOPPED"
    RESIZING = "RESIZING"
    SIGNALING = "SIGNALING"
    STAGE_OUT = "STAGE_OUT"
    REQUEUED = "REQUEUED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    REQUEUE_FED = "REQUEUE_FED"
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    SPECIAL_EXIT = "SPECIAL_EXIT"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    BOOT_FAIL = "BOOT_FAIL"
    DEADLINE = "DEADLINE"
    GONE = "GONE"
    """The controller answers and has no such job any more; how it ended is not known."""
    UNKNOWN = "UNKNOWN"
    """Slurm said nothing about the job, or a word that is not known here."""


LIVING = frozenset(
    {
        State.PENDING,
        State.CONFIGURING,
        State.RUNNING,
        State.COMPLETING,
        State.SUSPENDED,
        State.STOPPED,
        State.RESIZING,
        State.SIGNALING,
        State.STAGE_OUT,
        State.REQUEUED,
        State.REQUEUE_HOLD,
        State.REQUEUE_FED,
        State.RESV_DEL_HOLD,
        State.SPECIAL_EXIT,
    }
)
"""States of jobs that run, or will run again by themselves or once somebody lets them."""

ENDED = frozenset(
    {
        State.COMPLETED,
        State.FAILED,
        State.TIMEOUT,
        State.CANCELLED,
        State.NODE_FAIL,
        State.PREEMPTED,
        State.OUT_OF_MEMORY,
        State.BOOT_FAIL,
        State.DEADLINE,
        State.GONE,
    }
)
"""States after which nothing of a job runs."""


def state_of(text: str) -> State:
    """Return the state that Slurm's word stands for, such as "CANCELLED by 1000"; UNKNOWN for any other word."""
    word = text.strip().partition(" ")[0].rstrip("+")
    # Slurm itself never says these two.
    if word in (State.GONE.value, State.UNKNOWN.value):
        return State.UNKNOWN
    return State.__members__.get(word, State.UNKNOWN)
