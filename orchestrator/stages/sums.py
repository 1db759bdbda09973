"""Sums of stored kernel blocks: that of a layer set continues the sum of one before it that it begins with."""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.layer_sets import HEAD
from orchestrator.stages.blocks import tile_places
from orchestrator.store.artifacts import Artifact

FloatArray = npt.NDArray[np.float64]


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
    """The sums that a worker holds, tile by tile, of the layer sets that it met last, as many as there is room for.

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
        self._make_room()

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
        begun = next((n for n in range(len(groups), 0, -1) if (part, groups[:n]) in self._held), 0)
        before = self._held.get((part, groups[:begun]))
        total = np.zeros(shape, order="F")
        sums = []
        for position, (tile, rows, columns) in enumerate(tile_places(tiles, shape, rows_per_example)):
            size = slice(rows.stop - rows.start), slice(columns.stop - columns.start)
            block = _continued(tile, groups[begun:], None if before is None else before[position], size)
            total[rows, columns] = block
            sums.append(block)
        self._hold((part, groups), sums)
        return total

    def _hold(self, key: tuple[str, tuple[str, ...]], sums: list[FloatArray]) -> None:
        self._held.pop(key, None)
        if sum(block.nbytes for block in sums) <= self._room:
            self._held[key] = sums
        self._make_room()

    def _make_room(self) -> None:
        held = sum(block.nbytes for sums in self._held.values() for block in sums)
        while held > self._room:
            oldest = next(iter(self._held))
            held -= sum(block.nbytes for block in self._held.pop(oldest))


def _continued(
    tile: Artifact, groups: Sequence[str], before: FloatArray | None, size: tuple[slice, slice]
) -> FloatArray:
    """Return `before`, or zeros, with the blocks of `groups` added to it one by one; `before` stays as it is."""
    block = before
    fresh = False
    for group in groups:
        stored = tile.array(group)[size]
        if block is None:
            block, fresh = np.array(stored), True
        elif fresh:
            block += stored
        else:
            block, fresh = block + stored, True
    if block is None:
        raise AssertionError("a layer set has groups")
    return block
