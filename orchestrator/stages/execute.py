"""Computing one stage in a worker: claim it, compute it, publish it, write the journal, give the claim back."""

import errno
import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.errors import DamagedArtifactError, StorageError, SweepError
from orchestrator.folder import ResultsFolder, Sweep, git_commit, versions
from orchestrator.stage import Stage
from orchestrator.stages.registry import compute_of
from orchestrator.stages.resources import limited_threads, peak_memory, reset_peak_memory
from orchestrator.stages.work import Work
from orchestrator.store.files import host_name, slurm_job


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


_LASTING = (FailureClass.INPUT, FailureClass.CODE)
"""Classes of failures that come again wherever a stage is tried; every run of the sweep leaves it alone."""


@dataclass(frozen=True)
class Outcome:
    """The end of one attempt.

    Attributes:
        status: how it ended.
        failure: why it failed, if it did.
        message: what to tell the user of a failure.
        damaged: (kind, stage_id) of the damaged artifact, if one was met.
        seconds: time spent computing.
    """

    status: Status
    failure: FailureClass | None = None
    message: str = ""
    damaged: tuple[str, str] | None = None
    seconds: float = 0.0


_EVENTS = {
    Status.FINISHED: "finished",
    Status.EXISTING: "existing",
    Status.DAMAGED_INPUT: "damaged",
    Status.FAILED: "failed",
}


class StageWorker:
    """A worker's side of a sweep: it computes the stages that it is given, one after the other."""

    def __init__(self, sweep: Sweep, folder: ResultsFolder) -> None:
        self._work = Work(sweep, folder)
        self._claims = folder.claims()
        self._refusals = folder.refusals()
        self._journal = folder.journal()
        self._threads = sweep.spec.compute.threads

    @property
    def process(self) -> Mapping[str, Any]:
        """What names this process among those of all machines, in each of its claims."""
        return self._claims.process

    def interrupted(self) -> None:
        """Give back every claim of this process, at whatever point it was interrupted."""
        self._claims.release_all()

    def execute(self, stage: Stage, attempt: int = 1, halvings: int = 0) -> Outcome:
        """Compute a stage unless it is finished, a living process is computing it, or it failed for good elsewhere.

        Args:
            stage: the stage.
            attempt: how often its run has begun it, this time included.
            halvings: how often to halve its batches. The numbers then agree with those of whole batches to rounding,
                not bitwise; artifact, journal and tables say so.
        """
        store = self._work.store
        try:
            if store.has(stage.kind, stage.stage_id):
                return Outcome(Status.EXISTING)
            claim = self._claims.take(stage.stage_id)
            if claim is None:
                return Outcome(Status.BUSY)
            try:
                # Between the first look and the claim another process may have finished it.
                if store.has(stage.kind, stage.stage_id):
                    return Outcome(Status.EXISTING)
                # Whoever refused it did so before giving back the claim, so that nobody tries it in between.
                refusal = self._refusals.of(stage.stage_id)
                if refusal is not None:
                    failure, message = refusal
                    return Outcome(Status.FAILED, FailureClass(failure), message)
                return self._claimed(stage, attempt, halvings)
            finally:
                self._claims.release(claim)
        except StorageError as error:
            return Outcome(Status.FAILED, FailureClass.STORAGE, str(error))

    def _claimed(self, stage: Stage, attempt: int, halvings: int) -> Outcome:
        facts: dict[str, Any] = {"kind": stage.kind, "stage": stage.stage_id, "halvings": halvings}
        self._journal.write("started", **facts, attempt=attempt)
        outcome: Outcome | None = None  # stays so when the user interrupts
        started = time.perf_counter()
        try:
            with limited_threads(self._threads):
                outcome = self._attempt(stage, attempt, halvings, started)
        finally:
            self._work.discard()
            reason = {"failure": outcome.failure, "message": outcome.message} if outcome and outcome.message else {}
            event = _EVENTS[outcome.status] if outcome else "released"
            seconds = round(time.perf_counter() - started, 4)
            self._journal.write(event, **facts, seconds=seconds, peak_bytes=peak_memory(), **reason)
        if outcome.failure in _LASTING:
            self._refusals.add(stage.stage_id, outcome.failure, outcome.message)
        return outcome

    def _attempt(self, stage: Stage, attempt: int, halvings: int, started: float) -> Outcome:
        reset_peak_memory()
        self._work.halvings = halvings
        self._work.device = "cpu"
        try:
            product = compute_of(stage.kind)(stage, self._work)
            origin = provenance(stage, attempt, time.perf_counter() - started, device=self._work.device)
            origin |= self._work.halvings_of(stage)
            won = self._work.store.publish(stage, product.facts, origin, product.arrays)
            self._work.published()
        except DamagedArtifactError as error:
            self._work.store.forget(error.kind, error.stage_id)
            return Outcome(Status.DAMAGED_INPUT, message=str(error), damaged=(error.kind, error.stage_id))
        except StorageError as error:
            return Outcome(Status.FAILED, FailureClass.STORAGE, str(error))
        except MemoryError as error:
            return Outcome(Status.FAILED, FailureClass.MEMORY, _memory_message(error))
        except Exception as error:
            return _failed(error)
        return Outcome(Status.FINISHED if won else Status.EXISTING, seconds=time.perf_counter() - started)


def _failed(error: Exception) -> Outcome:
    if _is_out_of_memory(error):
        return Outcome(Status.FAILED, FailureClass.MEMORY, _memory_message(error))
    if isinstance(error, SweepError) or _is_named(error):
        return Outcome(Status.FAILED, FailureClass.INPUT, str(error))
    return Outcome(Status.FAILED, FailureClass.CODE, "".join(traceback.format_exception(error)))


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):  # of a file that cannot be mapped
        return error.errno == errno.ENOMEM
    # torch has no class for it on a CPU.
    return any(words in str(error) for words in ("not enough memory", "can't allocate memory", "out of memory"))


def _is_named(error: Exception) -> bool:
    # Asked by module so that a worker that never loaded torch need not load it to classify an error.
    bases = {f"{base.__module__}.{base.__qualname__}" for base in type(error).__mro__}
    return bool(bases & {"finetune.errors.FinetuneError", "ntk_dist.errors.NtkError"})


def _memory_message(error: BaseException) -> str:
    return f"out of memory ({error}); lower compute.batch_tokens or compute.workers"


def provenance(stage: Stage, attempt: int, seconds: float, *, device: str = "cpu") -> dict[str, Any]:
    """Return where and by what a stage was computed."""
    return {
        "stage_id": stage.stage_id,
        "host": host_name(),
        "device": device,
        "process": os.getpid(),
        "job": slurm_job(),
        "attempt": attempt,
        "seconds": round(seconds, 4),
        "peak_memory_bytes": peak_memory(),
        "finished": time.time(),
        "versions": versions(),
        "git": git_commit(),
        "python": sys.version.split()[0],
    }
