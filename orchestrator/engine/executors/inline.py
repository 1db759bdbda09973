"""The inline executor: every stage runs in this process, one after the other, where a debugger sees it."""

import time
from collections import deque
from types import TracebackType

from finetune.parallel.process_group import ProcessGroup
from orchestrator.engine.worker.execute import StageWorker
from orchestrator.errors import GpuFailedError, WorkerStartError
from orchestrator.stages.context.failures import Outcome, Status
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder, Sweep


class InlineExecutor:
    """Computes a stage when its outcome is requested.

    Args:
        sweep: the sweep.
        folder: its results folder.
        process_group: the processes that torchrun started, of which this one is the first.
    """

    capacity = 1

    def __init__(self, sweep: Sweep, folder: ResultsFolder, process_group: ProcessGroup | None = None) -> None:
        self._worker = StageWorker(sweep, folder, sweep.spec.compute.workers_per_gpu)
        self._worker.process_group = process_group or ProcessGroup()
        self._waiting: deque[tuple[Stage, int, int]] = deque()

    def submit(self, stage: Stage, attempt: int, halvings: int) -> None:
        """Put a stage into the queue."""
        self._waiting.append((stage, attempt, halvings))

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome] | None:
        """Compute the next stage of the queue, however long that takes; if there is none, wait `timeout` seconds."""
        if not self._waiting:
            time.sleep(timeout or 0.0)
            return None
        stage, attempt, halvings = self._waiting.popleft()
        outcome = self._worker.execute(stage, attempt, halvings)
        if outcome.status is Status.FAILED and stage.runs_model and self._worker.process_group.size > 1:
            # The others of the process group wait in the middle of the stage, and only their end frees them.
            raise WorkerStartError(f"{stage.label} failed ({outcome.failure}): {outcome.message}")
        if outcome.spent:
            raise GpuFailedError(
                f"{stage.label} failed ({outcome.failure}): {outcome.message.strip()}; this process can compute "
                "no more on its GPU: run the same command again, elsewhere if the GPU is at fault; finished "
                "stages are kept"
            )
        return stage, outcome

    def __enter__(self) -> "InlineExecutor":
        if (unfit := self._worker.unfit_gpu()) is not None:
            raise GpuFailedError(unfit.message)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.clear()
        if error is not None:
            self._worker.interrupted()
