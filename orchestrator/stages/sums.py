"""Sums of stored kernel blocks: that of a layer set continues the sum of one before it that it begins with."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.layer_sets import HEAD
from orchestrator.stages.blocks import tile_places
from orchestrator.store.artifacts import Artifact

FloatArray = npt.NDArray[np.float64]

MOST_HELD = 4
"""Sums that a worker holds of each part. More would seldom be continued, and new memory costs more than adding up."""


def summation_order(groups: Sequence[str], stored: Sequence[str]) -> tuple[str, ...]:
    """Return the groups of a layer set in the order in which their blocks are added.

    It is fixed by the layer set and by the groups that are `stored`, in the model's order, so that a sum has the same
    bits whatever was summed before. Prefixes begin at the first layer and suffixes at the last one, each with the head
    if it is in the kernel: every one of them begins with the one before it.
    """
    head = [group for group in groups if group == HEAD]
    below, stored_below = ([group for group in names if group != HEAD] for names in (groups, stored))
    is_suffix = bool(below) and below[-1] == stored_below[-1] and below[0] != stored_below[0]
    return (*head, *(reversed(below) if is_suffix else below))


class KernelSums:
    """The sums that a worker holds, tile by tile, of the layer sets that it met last, where there is room for them.

    They have the bits of sums from scratch: blocks are added one after the other either way.
    """

    def __init__(self) -> None:
        self._of: Hashable = None
        self._room = 0
        self._held: dict[tuple[str, tuple[str, ...]], list[FloatArray]] = {}

    def use(self, what: Hashable, room: int) -> None:
        """Hold sums of blocks of one problem, `what`, in so many bytes; those of another one are forgotten."""
        if what != self._of:
            self._held.clear()
        self._of, self._room = what, room
        while self._held and _size(self._held.values()) > room:
            self._held.pop(next(iter(self._held)))

    def sum(
        self,
        part: str,
        tiles: Sequence[Artifact],
        groups: tuple[str, ...],
        *,
        shape: tuple[int, int],
        rows_per_example: int,
    ) -> FloatArray:
        """Return what `sum_tiles` does of `groups` in their order, for tiles each of which holds all of them.

        Args:
            part: which of the problem's kernels it is.
            tiles: artifacts of `gram` stages.
            groups: names of the groups, in the order of `summation_order`.
            shape: rows and columns of the result.
            rows_per_example: rows of the kernel that an example gives.
        """
        places = list(tile_places(tiles, shape, rows_per_example))
        needed = sum(8 * (rows.stop - rows.start) * (columns.stop - columns.start) for _, rows, columns in places)
        begun = next((n for n in range(len(groups), 0, -1) if (part, groups[:n]) in self._held), 0)
        before = self._held.pop((part, groups[:begun]), None)
        spare = self._make_room(part, needed + (_size([before]) if before else 0))
        total = np.zeros(shape, order="F")
        sums = []
        for position, (tile, rows, columns) in enumerate(places):
            size = slice(rows.stop - rows.start), slice(columns.stop - columns.start)
            into = spare[position] if spare else None
            block = _continued(tile, groups[begun:], before[position] if before else None, size, into)
            total[rows, columns] = block
            sums.append(block)
        for key, held in (((part, groups[:begun]), before), ((part, groups), sums)):
            if held and _size(self._held.values()) + _size([held]) <= self._room:
                self._held[key] = held
        return total

    def _make_room(self, part: str, needed: int) -> list[FloatArray] | None:
        """Forget the oldest sums until so many bytes more have room; return one of a part, to be written over."""
        spare = None
        while self._held and (
            _size(self._held.values()) + needed > self._room or sum(of == part for of, _ in self._held) >= MOST_HELD - 1
        ):
            oldest = next((key for key in self._held if key[0] == part), next(iter(self._held)))
            forgotten = self._held.pop(oldest)
            spare = forgotten if oldest[0] == part else spare
        return spare


def _size(sums: Iterable[list[FloatArray]]) -> int:
    return sum(block.nbytes for blocks in sums for block in blocks)


def _continued(
    tile: Artifact,
    groups: Sequence[str],
    before: FloatArray | None,
    size: tuple[slice, slice],
    into: FloatArray | None,
) -> FloatArray:
    """Return `before`, or zeros, with the blocks of `groups` added to it one by one; `before` stays as it is."""
    stored = [tile.array(group)[size] for group in groups]
    parts = stored if before is None else [before, *stored]
    if len(parts) == 1 and before is not None:
        return before
    total: FloatArray = np.empty(parts[0].shape) if into is None else into
    if len(parts) == 1:
        total[:] = parts[0]
        return total
    np.add(parts[0], parts[1], out=total)
    for part in parts[2:]:
        total += part
    return total
