"""Explanations of job states for people who do not know Slurm."""

from slurm.query.job_state import State

_MEMORY_KILL = "killed (signal 9), by the memory limit as a rule where Slurm runs without cgroups"

_WAITS = {
    "None": "waits in the queue; Slurm has not said why",
    "Priority": "waits in the queue: jobs of higher priority come first",
    "Resources": "waits in the queue: it is next, and no nodes are free",
    "BeginTime": "waits for a moment before it may start again",
    "JobArrayTaskLimit": "waits for earlier tasks of its array",
    "JobHeldUser": "is held; `scontrol release` lets it go",
    "JobHeldAdmin": "is held by an administrator; ask why",
    "Dependency": "waits for another job",
    "DependencyNeverSatisfied": "waits for another job that failed; it will never start: cancel it",
    "PartitionTimeLimit": "will never start: its time limit is over the partition's; cancel it and lower time_limit",
    "PartitionNodeLimit": "will never start: it asks for more nodes than its partition has; cancel it and lower nodes",
    "PartitionDown": "waits for its partition, which is down",
    "PartitionInactive": "waits for its partition, which is inactive",
    "BadConstraints": "will never start: no nodes satisfy what it asks for; cancel it and change the profile",
    "InvalidAccount": "will never start: its account is not valid; cancel it and change account",
    "InvalidQOS": "will never start: its qos is not valid; cancel it and change qos",
    "launch failed requeued held": "could not be started on its node and is held; `scontrol release` tries again",
}
"""Explanations of why a job waits, by the reason that Slurm gives."""

_STATES = {
    State.CONFIGURING: "its nodes are getting ready",
    State.RUNNING: "runs",
    State.COMPLETING: "is ending",
    State.SUSPENDED: "is suspended, by the scheduler or an administrator",
    State.STOPPED: "is stopped by a signal and keeps its nodes",
    State.RESIZING: "is changing its size",
    State.SIGNALING: "is being told to stop",
    State.STAGE_OUT: "has ended and is copying files out",
    State.REQUEUED: "was queued again and waits to start",
    State.REQUEUE_FED: "was queued again and waits to start",
    State.REQUEUE_HOLD: "was queued again and is held; `scontrol release` lets it go",
    State.SPECIAL_EXIT: "was queued again and is held; `scontrol release` lets it go",
    State.RESV_DEL_HOLD: "is held because its reservation was deleted; `scontrol release` lets it go",
    State.COMPLETED: "ended",
    State.TIMEOUT: "reached its time limit",
    State.CANCELLED: "was cancelled",
    State.NODE_FAIL: "lost a node",
    State.PREEMPTED: "was stopped for a job of higher priority",
    State.OUT_OF_MEMORY: "needed more memory than the profile's `memory`",
    State.BOOT_FAIL: "its nodes did not start",
    State.DEADLINE: "reached its deadline",
    State.GONE: "the scheduler has forgotten it, as it does some minutes after a job ended; how it ended is not known",
    State.UNKNOWN: "the scheduler does not report its state, as in the first seconds of a job with accounting",
}


def explain(state: State, exit_code: tuple[int, int] | None, reason: str, *, certain: bool) -> str:
    """Return the meaning of a state, in one sentence without a subject.

    Args:
        state: the state.
        exit_code: exit status and signal.
        reason: why the job waits, in Slurm's words.
        certain: whether the state is known to be the last word about the job.
    """
    if state is State.PENDING:
        return _waiting(reason)
    if state is State.FAILED:
        return _failed(exit_code)
    text = _STATES[state]
    if state is State.UNKNOWN or certain:
        return text
    return f"{text}; it may have been queued again"


def _waiting(reason: str) -> str:
    if not reason:
        return _WAITS["None"]
    # The second is what Slurm says once it has looked and found no node of the partition usable.
    if reason.startswith(("ReqNodeNotAvail", "Nodes required for job are DOWN, DRAINED or reserved")):
        return f"waits for nodes that are down, drained or reserved ({reason})"
    if reason.startswith(("Assoc", "QOS")):
        return f"waits for a limit of your account or qos ({reason})"
    return _WAITS.get(reason, f"waits in the queue ({reason})")


def _failed(exit_code: tuple[int, int] | None) -> str:
    if exit_code is None:
        return "failed"
    status, signal = exit_code
    # A shell reports a child that died of signal n as the status 128 + n.
    if 9 in (signal, status - 128):
        return _MEMORY_KILL
    return f"died of signal {signal}" if signal else f"failed with exit status {status}"
