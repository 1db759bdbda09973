"""One process's view of its process group: its rank, and the messages between the processes.

Imports no torch, so that code that only asks for the size of the process group does not wait for that import.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

Work = TypeVar("Work")


class Board(Protocol):
    """Store of torch.distributed in which the first process of a group leaves messages for the others."""

    def set(self, key: str, value: str) -> None:
        """Leave a value."""

    def get(self, key: str) -> bytes:
        """Wait for a value, and return it."""

    def delete_key(self, key: str) -> bool:
        """Remove a value."""


@dataclass
class ProcessGroup:
    """This process among those that hold one model together; by itself it is a process group of one.

    Attributes:
        rank: its number, from 0; the first one leads.
        size: how many there are.
        board: where the first leaves messages for the others; None in a process group of one.
    """

    rank: int = 0
    size: int = 1
    board: Board | None = None
    _said: int = field(default=0, repr=False)

    @property
    def leads(self) -> bool:
        """True for the first process, which decides for all."""
        return self.rank == 0

    def rounds(self, work: Sequence[Work]) -> Iterator[tuple[Work, bool]]:
        """Yield the item that this process works on in each round, and whether its result counts.

        Every process has equally many rounds, because the weights of each layer come from all of them. Where there is
        not enough work for a last round, the others work on something once more, and their result is dropped.
        """
        for first in range(0, len(work), self.size):
            number = first + self.rank
            yield (work[number], True) if number < len(work) else (work[first], False)

    def agreed(self, value: Any = None) -> Any:
        """Return the value, as JSON, that the first process gives; the others wait for it, for as long as it takes.

        All processes call it equally often, and must meet elsewhere between one call and the next but one.
        """
        if self.board is None:
            return value
        key = f"said/{self._said}"
        self._said += 1
        if not self.leads:
            return json.loads(self.board.get(key))
        self.board.set(key, json.dumps(value))
        self.board.delete_key(f"said/{self._said - _KEPT}")
        return value

    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank, once all have given theirs."""
        if self.size == 1:
            return [value]
        import torch.distributed

        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found


_KEPT = 1000
"""Messages that are kept: far more than the first process can be ahead of the others."""
