"""The processes of a group that follow its first one: they take part in the stages that it computes."""

import logging
import time

from finetune.parallel.process_group import ProcessGroup
from orchestrator.process_log import at_stage
from orchestrator.stages.context.failures import LASTING, Outcome, Status, failed
from orchestrator.stages.context.work import Work
from orchestrator.stages.context.worker_state import WorkerState
from orchestrator.stages.registry import stage_from_json
from orchestrator.store.files import host_name
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.resources import fixed_sums, peak_memory, reset_peak_memory

logger = logging.getLogger(__name__)


def lead(process_group: ProcessGroup, stage: Stage, halvings: int) -> None:
    """Tell the other processes of a group which stage the first one begins."""
    process_group.agreed({"stage": stage.to_json(), "halvings": halvings})


def dismiss(process_group: ProcessGroup) -> None:
    """Tell the other processes of a group that no stage follows for now."""
    process_group.agreed(None)


class Follower:
    """The part of a process of a group that is not the first: it neither claims nor publishes stages."""

    def __init__(self, sweep: Sweep, folder: ResultsFolder, process_group: ProcessGroup) -> None:
        self._state = WorkerState(sweep, folder)
        self._process_group = process_group
        self._refusals = folder.refusals()
        self._journal = folder.journal()
        self._compute = sweep.spec.compute

    def follow(self) -> Outcome | None:
        """Take part in stage after stage until the first process has none; return the failure of one, if it failed.

        After a failure the process group cannot continue: the other processes wait for this one.
        """
        while (order := self._process_group.agreed()) is not None:
            stage = stage_from_json(order["stage"])
            with at_stage(f"{stage.kind}/{stage.stage_id}"):
                outcome = self._take_part(stage, order["halvings"])
            if outcome is not None:
                return outcome
        return None

    def forget(self) -> None:
        """Forget what stages of one kind share: this process now computes others by itself."""
        self._state.shared(None)

    def _take_part(self, stage: Stage, halvings: int) -> Outcome | None:
        work = Work(self._state, stage.of, halvings, self._process_group)
        reset_peak_memory(spared=self._compute.memory_budget // 8)
        started = time.perf_counter()
        try:
            with fixed_sums(self._compute):
                stage.of.compute(stage, work)
                work.met(peak_memory())
        except Exception as error:
            outcome = failed(error)
            if outcome.broken_gpu:
                self._journal.write("unfit_gpu", host=host_name(), message=outcome.message)
            self._note(stage, outcome, time.perf_counter() - started)
            return outcome
        finally:
            work.discard()
        logger.debug("took part in %s for %.3f s", stage.label, time.perf_counter() - started)
        return None

    def _note(self, stage: Stage, outcome: Outcome, seconds: float) -> None:
        rank = self._process_group.rank
        reason = {"failure": outcome.failure, "message": outcome.message}
        self._journal.write("followed", kind=stage.kind, stage=stage.stage_id, rank=rank, seconds=seconds, **reason)
        if outcome.status is Status.FAILED and outcome.failure in LASTING:
            self._refusals.add(stage.stage_id, outcome.failure, outcome.message)
