"""Interface of all executors; new ones, for clusters too, implement it."""

from types import TracebackType
from typing import Protocol

from orchestrator.stages.context.failures import Outcome
from orchestrator.store.stage import Stage


class Executor(Protocol):
    """Runs stages. Use it as a context manager, which starts it and shuts it down again."""

    @property
    def capacity(self) -> int:
        """Stages that can be in flight at once; it may change, and be 0, as workers come and go."""

    def submit(self, stage: Stage, attempt: int, halvings: int) -> None:
        """Start computing a stage; at most `capacity` may be in flight.

        Args:
            stage: the stage.
            attempt: how often it is begun in this run, counted from 1.
            halvings: how often its batches are halved, so that it takes less memory.
        """

    def stop(self) -> None:
        """Begin none of the stages that were submitted and not begun: they end as left. Signal handlers may call it."""

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome] | None:
        """Wait until a stage in flight ends, and return it with how it ended.

        It also waits when nothing is in flight: there may be no worker yet, or the caller may have to look again later.

        Args:
            timeout: seconds after which to return None instead, or sooner where `capacity` changes; None, which is
                given only while something is in flight, waits for as long as it takes.
        """

    def __enter__(self) -> "Executor": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
