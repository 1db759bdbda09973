"""Computing one stage in a worker: claim it, compute it, publish it, write the journal, give the claim back."""

import logging
import os
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from finetune.parallel.process_group import ProcessGroup
from ntk_dist.device.faults import give_back_device_memory
from orchestrator.engine.worker.following import lead
from orchestrator.errors import DamagedArtifactError, StorageError
from orchestrator.process_log import at_stage
from orchestrator.stages.context.failures import LASTING, FailureClass, Outcome, Status, failed
from orchestrator.stages.context.work import Work
from orchestrator.stages.context.worker_state import WorkerState
from orchestrator.store.claims import Claim
from orchestrator.store.files import host_name, slurm_job
from orchestrator.store.journal import Journal
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.resources import fixed_sums, peak_memory, reset_peak_memory
from orchestrator.sweep.versions import git_commit, versions

logger = logging.getLogger(__name__)

NOTED_LOADING = 0.05
"""Seconds of loading libraries from which on the event of a stage has them, beside the seconds of the stage itself."""

_EVENTS = {
    Status.FINISHED: "finished",
    Status.EXISTING: "existing",
    Status.DAMAGED_INPUT: "damaged",
    Status.FAILED: "failed",
}


Task = tuple[Stage, int, int]
"""A stage, how often its run has begun it, this time included, and how often to halve its batches. The numbers of
halved batches agree with those of whole ones to rounding, not bitwise; artifact, journal and tables say so."""


class StageWorker:
    """A worker's side of a sweep: it computes the stages that it is given, one after the other.

    Args:
        sweep: the sweep.
        folder: its results folder.
        on_a_gpu: how many workers share the GPU of this one.

    Attributes:
        process_group: the processes that hold the model with this one, which leads them: each of them has a `Follower`.
    """

    def __init__(self, sweep: Sweep, folder: ResultsFolder, on_a_gpu: int = 1) -> None:
        self._state = WorkerState(sweep, folder, on_a_gpu)
        self._claims = folder.claims()
        self._refusals = folder.refusals()
        self._journal = folder.journal()
        self._compute = sweep.spec.compute
        self.process_group = ProcessGroup()

    @property
    def process(self) -> Mapping[str, Any]:
        """Identification of this process among those of all machines, as written in each of its claims."""
        return self._claims.process

    def unfit_gpu(self) -> Outcome | None:
        """Return the failure if this process cannot use its GPU, which is broken or of the wrong kind; else None."""
        if self._compute.device != "cuda":
            return None
        try:
            self._state.use_device("cuda")
        except Exception as error:
            outcome = failed(error)
            if outcome.broken_gpu:
                note_unfit_gpu(self._journal, outcome)
                return outcome
        return None

    def interrupted(self) -> None:
        """Give back every claim of this process, wherever it was interrupted."""
        self._claims.release_all()

    def execute(self, stage: Stage, attempt: int = 1, halvings: int = 0) -> Outcome:
        """Compute one stage, as `execute_all` does."""
        (outcome,) = self.execute_all([(stage, attempt, halvings)])
        return outcome

    def execute_all(self, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
        """Yield the outcome of each stage, which is computed when it is asked for.

        A stage that is finished, that a living process is computing, or that failed for good elsewhere is not computed.
        All others are claimed before the first begins, so that it may do some of their work with its own; each is
        published, and its claim given back, when its outcome is yielded. Close the iterator to go no further.
        """
        held: dict[str, Claim] = {}
        try:
            settled = [self._claim(stage, held) for stage, _, _ in tasks]
            for number, (task, outcome) in enumerate(zip(tasks, settled, strict=True), 1):
                later = zip(tasks[number:], settled[number:], strict=True)
                ahead = [stage for (stage, _, halvings), ended in later if ended is None and not halvings]
                yield outcome or self._release_after(task, ahead, held)
        finally:
            for claim in held.values():
                self._claims.release(claim)

    def _claim(self, stage: Stage, held: dict[str, Claim]) -> Outcome | None:
        """Claim a stage and return None, or return why it is not to be computed."""
        store = self._state.store
        try:
            if store.has(stage.kind, stage.stage_id):
                return Outcome(Status.EXISTING)
            claim = self._claims.take(stage.stage_id)
        except StorageError as error:
            return Outcome(Status.FAILED, FailureClass.STORAGE, str(error))
        if claim is None:
            logger.debug("%s %s: another process is computing it", stage.kind, stage.stage_id)
            return Outcome(Status.BUSY)
        held[stage.stage_id] = claim
        return None

    def _release_after(self, task: Task, ahead: Sequence[Stage], held: dict[str, Claim]) -> Outcome:
        """Compute a stage that is claimed, and give back its claim."""
        stage, attempt, halvings = task
        try:
            try:
                # Before the claim another process may have finished it.
                if self._state.store.has(stage.kind, stage.stage_id):
                    return Outcome(Status.EXISTING)
                # A process refuses a stage before it gives back the claim, so that no other tries it in between.
                refusal = self._refusals.of(stage.stage_id)
                if refusal is not None:
                    failure, message = refusal
                    logger.info("%s %s: not tried, it failed elsewhere (%s)", stage.kind, stage.stage_id, failure)
                    return Outcome(Status.FAILED, FailureClass(failure), message)
                with at_stage(f"{stage.kind}/{stage.stage_id}"):
                    return self._claimed(stage, attempt, halvings, ahead)
            finally:
                self._claims.release(held.pop(stage.stage_id))
        except StorageError as error:
            return Outcome(Status.FAILED, FailureClass.STORAGE, str(error))

    def _claimed(self, stage: Stage, attempt: int, halvings: int, ahead: Sequence[Stage]) -> Outcome:
        facts: dict[str, Any] = {"kind": stage.kind, "stage": stage.stage_id, "halvings": halvings}
        loads = {"loads": True} if "torch" not in sys.modules else {}  # whatever is slow to load comes with it
        self._journal.write("started", **facts, attempt=attempt, **loads)
        group = self.process_group if stage.runs_model else None
        work = Work(self._state, stage.of, halvings, group, ahead)
        logger.debug("%s begun, attempt %d, batches halved %d times", stage.label, attempt, halvings)
        outcome: Outcome | None = None  # stays so when the user interrupts
        began = started = time.perf_counter()
        try:
            started += _loading(stage)
            if loads:
                self._journal.write("loaded")
            with fixed_sums(self._compute):
                outcome = self._attempt(work, stage, attempt, started)
        finally:
            work.discard()
            reason = {"failure": outcome.failure, "message": outcome.message} if outcome and outcome.message else {}
            event = _EVENTS[outcome.status] if outcome else "released"
            seconds, peak = round(time.perf_counter() - started, 4), peak_memory()
            loading = {"loading": round(started - began, 4)} if started - began > NOTED_LOADING else {}
            self._journal.write(event, **facts, seconds=seconds, **loading, peak_bytes=peak, **reason)
            logger.info("%s %s after %.3f s, peak memory %.1f MiB", stage.label, event, seconds, peak / 2**20)
        if outcome.broken_gpu:
            note_unfit_gpu(self._journal, outcome)
        if outcome.failure is FailureClass.MEMORY:
            give_back_device_memory()
        if outcome.failure in LASTING:
            self._refusals.add(stage.stage_id, outcome.failure, outcome.message)
        return outcome

    def _attempt(self, work: Work, stage: Stage, attempt: int, started: float) -> Outcome:
        reset_peak_memory(spared=self._compute.memory_budget // 8)
        try:
            if stage.runs_model:
                lead(self.process_group, stage, work.halvings)
            product = stage.of.compute(stage, work)
            peak = work.met(peak_memory())
            origin = self._provenance(work, stage, attempt, time.perf_counter() - started, peak)
            computed = time.perf_counter()
            won = work.store.publish(stage, product.facts, origin, product.arrays)
            logger.debug("computed in %.3f s, published in %.3f s", computed - started, time.perf_counter() - computed)
            work.published()
        except Exception as error:
            if isinstance(error, DamagedArtifactError):
                work.store.forget(error.kind, error.stage_id)
            return failed(error)
        return Outcome(Status.FINISHED if won else Status.EXISTING, seconds=time.perf_counter() - started)

    def _provenance(self, work: Work, stage: Stage, attempt: int, seconds: float, peak: int) -> dict[str, Any]:
        process_group = (
            {"group_size": self.process_group.size} if stage.runs_model and self.process_group.size > 1 else {}
        )
        found = provenance(stage, attempt, seconds, device=work.device, peak=peak) | process_group
        if work.device != "cpu":
            found["deterministic"] = self._compute.deterministic
        return found | work.halvings_of(stage)


def _loading(stage: Stage) -> float:
    """Load the libraries of a stage; return the seconds, which are no time of the stage."""
    began = time.perf_counter()
    with suppress(Exception):  # the stage fails with the same error
        stage.of.load()
    return time.perf_counter() - began


def note_unfit_gpu(journal: Journal, outcome: Outcome) -> None:
    """Record in the journal that this node has an unusable GPU, for the later choice of nodes."""
    journal.write("unfit_gpu", host=host_name(), message=outcome.message)


def provenance(
    stage: Stage, attempt: int, seconds: float, *, device: str = "cpu", peak: int | None = None
) -> dict[str, Any]:
    """Return the provenance of a stage: where and by what it was computed."""
    return {
        "stage_id": stage.stage_id,
        "host": host_name(),
        "device": device,
        "process": os.getpid(),
        "job": slurm_job(),
        "attempt": attempt,
        "seconds": round(seconds, 4),
        "peak_memory_bytes": peak_memory() if peak is None else peak,
        "finished": time.time(),
        "versions": versions(),
        "git": git_commit(),
        "python": sys.version.split()[0],
    }
