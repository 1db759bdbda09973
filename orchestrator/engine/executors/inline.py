"""The inline executor: every stage runs in this process, one after the other, where a debugger sees it."""

import time
from collections import deque
from collections.abc import Generator
from itertools import islice, takewhile
from types import TracebackType

from finetune.parallel.process_group import ProcessGroup
from orchestrator.engine.executors.bundles import BundleSizes
from orchestrator.engine.worker.execute import StageWorker, Task
from orchestrator.errors import GpuFailedError, WorkerStartError
from orchestrator.stages.context.failures import Outcome, Status
from orchestrator.store.stage import Stage, StageKind
from orchestrator.sweep.folder import ResultsFolder, Sweep


class InlineExecutor:
    """Computes a stage when its outcome is requested.

    Args:
        sweep: the sweep.
        folder: its results folder.
        process_group: the processes that torchrun started, of which this one is the first.
    """

    def __init__(self, sweep: Sweep, folder: ResultsFolder, process_group: ProcessGroup | None = None) -> None:
        self._worker = StageWorker(sweep, folder, sweep.spec.compute.workers_per_gpu)
        self._worker.process_group = process_group or ProcessGroup()
        self._waiting: deque[Task] = deque()
        self._bundle: deque[Task] = deque()
        self._computing: Generator[Outcome, None, None] | None = None
        self._bundles = BundleSizes()
        self._kind: StageKind | None = None
        self._stopped = False

    @property
    def capacity(self) -> int:
        """Stages that are computed one after the other, some of their work together: one but for some kinds."""
        return self._bundles.of(self._kind) if self._kind is not None and self._kind.bundled else 1

    def submit(self, stage: Stage, attempt: int, halvings: int) -> None:
        """Put a stage into the queue."""
        self._kind = stage.of
        self._waiting.append((stage, attempt, halvings))

    def stop(self) -> None:
        """Begin no further stage."""
        self._stopped = True

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome] | None:
        """Compute the next stage of the queue, however long that takes; if there is none, wait `timeout` seconds."""
        if self._stopped and (self._bundle or self._waiting):
            self._close()
            stage, _, _ = self._bundle.popleft() if self._bundle else self._waiting.popleft()
            return stage, Outcome(Status.LEFT)
        if self._computing is None and not self._begin_bundle():
            time.sleep(timeout or 0.0)
            return None
        assert self._computing is not None
        outcome = next(self._computing)
        stage, _, _ = self._bundle.popleft()
        if not self._bundle:
            self._close()
        self._bundles.took(stage.of, [outcome])
        self._refuse_to_go_on_after(stage, outcome)
        return stage, outcome

    def _begin_bundle(self) -> bool:
        """Begin with the next stages of one kind; return whether there are any."""
        if not self._waiting:
            return False
        kind = self._waiting[0][0].of
        next_ones = islice(self._waiting, self._bundles.of(kind) if kind.bundled else 1)
        self._bundle.extend(list(takewhile(lambda task: task[0].of == kind, next_ones)))
        for _ in self._bundle:
            self._waiting.popleft()
        self._computing = self._worker.execute_all(list(self._bundle))
        return True

    def _close(self) -> None:
        """Give back the claims on stages of the bundle that were not begun."""
        if self._computing is not None:
            self._computing.close()
            self._computing = None

    def _refuse_to_go_on_after(self, stage: Stage, outcome: Outcome) -> None:
        if outcome.status is Status.FAILED and stage.runs_model and self._worker.process_group.size > 1:
            # The others of the process group wait in the middle of the stage, and only their end frees them.
            raise WorkerStartError(f"{stage.label} failed ({outcome.failure}): {outcome.message}")
        if outcome.spent:
            raise GpuFailedError(
                f"{stage.label} failed ({outcome.failure}): {outcome.message.strip()}; this process can compute "
                "no more on its GPU: run the same command again, elsewhere if the GPU is at fault; finished "
                "stages are kept"
            )

    def __enter__(self) -> "InlineExecutor":
        if (unfit := self._worker.unfit_gpu()) is not None:
            raise GpuFailedError(unfit.message)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._waiting.clear()
        if error is not None:
            self._worker.interrupted()
