"""The inline executor: every stage runs in this process, one after the other, where a debugger sees it."""

import time
from collections import deque
from types import TracebackType

from orchestrator.folder import ResultsFolder, Sweep
from orchestrator.stage import Stage
from orchestrator.stages.execute import StageWorker
from orchestrator.stages.failures import Outcome


class InlineExecutor:
    """Computes a stage when its outcome is asked for."""

    capacity = 1

    def __init__(self, sweep: Sweep, folder: ResultsFolder) -> None:
        self._worker = StageWorker(sweep, folder)
        self._waiting: deque[tuple[Stage, int, int]] = deque()

    def submit(self, stage: Stage, attempt: int, halvings: int) -> None:
        """Put a stage in line."""
        self._waiting.append((stage, attempt, halvings))

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome] | None:
        """Compute the next stage in line, however long that takes; with none in line, let `timeout` seconds pass."""
        if not self._waiting:
            time.sleep(timeout or 0.0)
            return None
        stage, attempt, halvings = self._waiting.popleft()
        return stage, self._worker.execute(stage, attempt, halvings)

    def __enter__(self) -> "InlineExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.clear()
        if error is not None:
            self._worker.interrupted()
