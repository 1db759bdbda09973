"""Storage for the state of a run, of one process or of all processes of a group."""

from typing import Protocol

import torch
from torch.distributed import broadcast, broadcast_object_list

from finetune.parallel.process_group import ProcessGroup
from finetune.training.run import Arrays


class Checkpoint(Protocol):
    """Storage for the state of a run."""

    def load(self) -> Arrays | None:
        """Return what was saved last; None if nothing was."""

    def due(self) -> bool:
        """Tell whether it is time to save."""

    def save(self, arrays: Arrays) -> None:
        """Save arrays in place of the earlier ones."""


class NoCheckpoint:
    """Saves nothing: for runs too short to be worth saving."""

    def load(self) -> Arrays | None:
        """See `Checkpoint.load`."""
        return None

    def due(self) -> bool:
        """See `Checkpoint.due`."""
        return False

    def save(self, arrays: Arrays) -> None:
        """See `Checkpoint.save`."""


class ProcessGroupCheckpoint:
    """A checkpoint that the first process keeps for all: it alone reads, writes and looks at the clock.

    Args:
        process_group: the process group.
        kept: where the first process keeps it; the others need none.
    """

    def __init__(self, process_group: ProcessGroup, kept: Checkpoint | None = None) -> None:
        self._process_group = process_group
        self._kept = kept or NoCheckpoint()

    def load(self) -> Arrays | None:
        """See `Checkpoint.load`."""
        values: list[Arrays | None] = [self._kept.load() if self._process_group.leads else None]
        broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def due(self) -> bool:
        """See `Checkpoint.due`."""
        is_due = torch.tensor([self._process_group.leads and self._kept.due()])
        broadcast(is_due, src=0)
        return bool(is_due)

    def save(self, arrays: Arrays) -> None:
        """See `Checkpoint.save`."""
        if self._process_group.leads:
            self._kept.save(arrays)
