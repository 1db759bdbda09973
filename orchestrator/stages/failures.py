"""How the attempt to compute a stage ended, and into which class its failure falls."""

import errno
import sys
import traceback
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.errors import DamagedArtifactError, StorageError, SweepError


class Status(StrEnum):
    """How the attempt to compute a stage ended."""

    FINISHED = "finished"
    EXISTING = "existing"
    BUSY = "busy"
    DAMAGED_INPUT = "damaged input"
    FAILED = "failed"


class FailureClass(StrEnum):
    """Why a stage failed, which decides whether it is tried again."""

    INPUT = "input"
    CODE = "code"
    MEMORY = "out of memory"
    STORAGE = "storage"
    WORKER = "worker lost"
    NODE = "node lost"


LASTING = (FailureClass.INPUT, FailureClass.CODE)
"""Classes of failures that come again wherever a stage is tried; every run of the sweep leaves it alone."""


@dataclass(frozen=True)
class Outcome:
    """The end of one attempt.

    Attributes:
        status: how it ended.
        failure: why it failed, if it did.
        message: what to tell the user of a failure.
        trace: what raised it, for reports of faults; empty where the message says all.
        damaged: (kind, stage_id) of the damaged artifact, if one was met.
        seconds: time spent computing.
    """

    status: Status
    failure: FailureClass | None = None
    message: str = ""
    trace: str = ""
    damaged: tuple[str, str] | None = None
    seconds: float = 0.0


def failed(error: Exception) -> Outcome:
    """Return how an attempt ended that raised an error."""
    if isinstance(error, DamagedArtifactError):
        return Outcome(Status.DAMAGED_INPUT, message=str(error), damaged=(error.kind, error.stage_id))
    if isinstance(error, StorageError):
        return Outcome(Status.FAILED, FailureClass.STORAGE, str(error))
    if _is_lost_connection(error):
        return Outcome(Status.FAILED, FailureClass.WORKER, f"another process of the model group was lost: {error}")
    if is_out_of_memory(error):
        return Outcome(Status.FAILED, FailureClass.MEMORY, _memory_message(error))
    if isinstance(error, SweepError) or _is_named(error):
        trace = "" if error.__cause__ is None else "".join(traceback.format_exception(error))
        return Outcome(Status.FAILED, FailureClass.INPUT, str(error), trace)
    return Outcome(Status.FAILED, FailureClass.CODE, "".join(traceback.format_exception(error)))


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error says that there was too little memory, of the host or of a device."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):  # of a file that cannot be mapped
        return error.errno == errno.ENOMEM
    # torch has no class for it on a CPU.
    return any(words in str(error) for words in ("not enough memory", "can't allocate memory", "out of memory"))


def _is_lost_connection(error: Exception) -> bool:
    if "finetune.sharding.processes" not in sys.modules:
        return False  # no group, no connection
    from finetune.sharding.processes import is_lost_connection

    return is_lost_connection(error)


def _is_named(error: Exception) -> bool:
    # Asked by module so that a worker that never loaded torch need not load it to classify an error.
    bases = {f"{base.__module__}.{base.__qualname__}" for base in type(error).__mro__}
    return bool(bases & {"finetune.errors.FinetuneError", "ntk_dist.errors.NtkError"})


def _memory_message(error: BaseException) -> str:
    return f"out of memory ({error}); lower compute.batch_tokens or compute.workers"
