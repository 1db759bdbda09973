"""Outcomes of attempts to compute a stage, and classes of their failures."""

import logging
import os
import re
import sys
import traceback
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from ntk_dist.device.faults import (
    device_answers,
    is_broken_device,
    is_out_of_files,
    is_out_of_memory,
    is_out_of_threads,
)
from orchestrator.errors import DamagedArtifactError, OtherGpuError, StorageError, SweepError
from orchestrator.process_limits import no_more_threads
from orchestrator.store.files import host_name, no_more_files

logger = logging.getLogger(__name__)


class Status(StrEnum):
    """Result of an attempt to compute a stage."""

    FINISHED = "finished"
    EXISTING = "existing"
    BUSY = "busy"
    LEFT = "left"
    DAMAGED_INPUT = "damaged input"
    FAILED = "failed"


class FailureClass(StrEnum):
    """Cause of a stage's failure, which decides whether it is tried again."""

    INPUT = "input"
    CODE = "code"
    MEMORY = "out of memory"
    STORAGE = "storage"
    WORKER = "worker lost"
    NODE = "node lost"


LASTING = (FailureClass.INPUT, FailureClass.CODE)
"""Classes of failures that recur wherever a stage is tried; no run of the sweep tries such a stage again."""


@dataclass(frozen=True)
class Outcome:
    """The end of one attempt.

    Attributes:
        status: how it ended.
        failure: why it failed, if it did.
        message: what to tell the user of a failure.
        trace: the traceback, for bug reports; empty where the message is enough.
        damaged: (kind, stage_id) of the damaged artifact, if one was met.
        seconds: time spent computing.
        spent: whether the process can compute nothing more, because its GPU no longer responds.
    """

    status: Status
    failure: FailureClass | None = None
    message: str = ""
    trace: str = ""
    damaged: tuple[str, str] | None = None
    seconds: float = 0.0
    spent: bool = False

    @property
    def broken_gpu(self) -> bool:
        """True if the GPU of the process is at fault, so that no other process may be given it."""
        return self.failure is FailureClass.NODE and self.spent


def failed(error: Exception) -> Outcome:
    """Return the outcome of an attempt that raised an error."""
    outcome = _classified(error)
    logger.warning("%s: %s", outcome.failure or outcome.status, first_line(error), exc_info=error)
    spent = outcome.failure is FailureClass.NODE or not device_answers()
    return replace(outcome, spent=True) if spent else outcome


def _classified(error: Exception) -> Outcome:
    if isinstance(error, DamagedArtifactError):
        return Outcome(Status.DAMAGED_INPUT, message=str(error), damaged=(error.kind, error.stage_id))
    if isinstance(error, OSError) and is_out_of_files(error):
        error = no_more_files(Path(str(error.filename or "a file")))
    if isinstance(error, StorageError):
        return Outcome(Status.FAILED, FailureClass.STORAGE, str(error))
    if (advice := _of_other_bits(error)) is not None:
        return Outcome(Status.FAILED, FailureClass.INPUT, advice)
    if (elsewhere := _not_of_the_stage(error)) is not None:
        failure, message = elsewhere
        return Outcome(Status.FAILED, failure, message)
    if isinstance(error, SweepError) or _is_named(error):
        trace = "" if error.__cause__ is None else "".join(traceback.format_exception(error))
        return Outcome(Status.FAILED, FailureClass.INPUT, str(error), trace)
    return Outcome(Status.FAILED, FailureClass.CODE, "".join(traceback.format_exception(error)))


def _not_of_the_stage(error: Exception) -> tuple[FailureClass, str] | None:
    """Return class and message of a failure that another attempt may avoid; None for other failures."""
    if isinstance(error, OtherGpuError):
        return FailureClass.NODE, str(error)
    # NCCL reports every failure of another process of the group as a lost connection.
    if is_broken_gpu(error):
        return FailureClass.NODE, f"the GPU of {host_name()} failed: {first_line(error)}"
    if is_out_of_memory(error):
        return FailureClass.MEMORY, _memory_message(error)
    if is_out_of_threads(error):
        return FailureClass.WORKER, no_more_threads()
    if _is_lost_connection(error):
        return FailureClass.WORKER, f"another process of the process group was lost: {error}"
    return None


def _of_other_bits(error: Exception) -> str | None:
    """Return advice for an error by which torch refuses a nondeterministic operation; None for other errors."""
    words = str(error) if isinstance(error, RuntimeError) else ""
    if found := re.match(r"(\S+) does not have a deterministic implementation", words):
        return (
            f"{found[1]}, which this model needs, adds in any order on a GPU: set compute.deterministic: false for "
            "numbers that agree to rounding"
        )
    if "CUBLAS_WORKSPACE_CONFIG" in words:
        given = os.environ.get("CUBLAS_WORKSPACE_CONFIG", "")
        return (
            f"CUBLAS_WORKSPACE_CONFIG={given} lets cuBLAS add in any order: unset it, set :4096:8, or set "
            "compute.deterministic: false for numbers that agree to rounding"
        )
    return None


def is_broken_gpu(error: Exception) -> bool:
    """Tell whether an error says that this machine's GPU is at fault, or its driver."""
    if _has_base(error, "ntk_dist.device.transfers.LostDeviceError"):
        return True
    return isinstance(error, RuntimeError) and is_broken_device(str(error))


def _is_lost_connection(error: Exception) -> bool:
    if "finetune.parallel.processes" not in sys.modules:
        return False  # no group, no connection
    from finetune.parallel.processes import is_lost_connection

    return is_lost_connection(error)


def _is_named(error: Exception) -> bool:
    return _has_base(error, "finetune.errors.FinetuneError", "ntk_dist.errors.NtkError")


def _has_base(error: Exception, *names: str) -> bool:
    # Asked by name so that a worker that never loaded torch need not load it to classify an error.
    return any(f"{base.__module__}.{base.__qualname__}" in names for base in type(error).__mro__)


def first_line(error: BaseException) -> str:
    """Return the first line of an error; CUDA adds advice to programmers after it."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _memory_message(error: BaseException) -> str:
    return f"out of memory ({error}); lower compute.batch_tokens or compute.workers"
