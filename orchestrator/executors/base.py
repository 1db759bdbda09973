"""What every executor can do; the seam at which clusters plug in."""

from types import TracebackType
from typing import Protocol

from orchestrator.stage import Stage
from orchestrator.stages.execute import Outcome


class Executor(Protocol):
    """Runs stages. Use it as a context manager, which starts it and takes it down again.

    Attributes:
        capacity: stages that can be in flight at once.
    """

    capacity: int

    def submit(self, stage: Stage, attempt: int) -> None:
        """Start computing a stage; at most `capacity` may be in flight."""

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome] | None:
        """Wait until a stage in flight ends, and return it with how it ended.

        Args:
            timeout: seconds after which to return None instead; None waits for as long as it takes.
        """

    def __enter__(self) -> "Executor": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
