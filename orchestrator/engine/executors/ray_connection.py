"""The connection to a Ray, as the executor uses it: to one of this machine, or to that of an allocation."""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol


class RayConnection(Protocol):
    """Connection of this process to a Ray; use it as a context manager, which connects and disconnects.

    Attributes:
        gpus_per_worker: GPUs that each worker has for itself; known once connected.
    """

    gpus_per_worker: float

    def __enter__(self) -> int:
        """Connect, and return the number of workers to start."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def ran_out_of_memory(self, host: str) -> bool:
        """Tell whether the processes on a node were ended because of their memory."""

    def lost(self) -> str | None:
        """Return the part of Ray that has ended, if this process has to start Ray again; else None."""

    def end_workers(self, workers: Sequence[int]) -> bool:
        """Kill workers by their process numbers, and wait until they are gone; return False if others have to do it.

        Nothing is asked of Ray, which may be lost, or about to end.
        """

    def start_again(self) -> None:
        """Start a lost Ray again."""
