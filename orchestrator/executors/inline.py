"""The inline executor: every stage runs in this process, one after the other, where a debugger sees it."""

from collections import deque
from types import TracebackType

from orchestrator.folder import ResultsFolder, Sweep
from orchestrator.stage import Stage
from orchestrator.stages.execute import Outcome, StageWorker


class InlineExecutor:
    """Computes a stage when its outcome is asked for."""

    capacity = 1

    def __init__(self, sweep: Sweep, folder: ResultsFolder) -> None:
        self._worker = StageWorker(sweep, folder)
        self._waiting: deque[tuple[Stage, int]] = deque()

    def submit(self, stage: Stage, attempt: int) -> None:
        """Put a stage in line."""
        self._waiting.append((stage, attempt))

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome]:
        """Compute the next stage in line, however long that takes."""
        stage, attempt = self._waiting.popleft()
        return stage, self._worker.execute(stage, attempt)

    def __enter__(self) -> "InlineExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.clear()
        if error is not None:
            self._worker.interrupted()
