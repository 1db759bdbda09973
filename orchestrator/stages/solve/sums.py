"""Sums of stored kernel blocks, layer by layer: a worker keeps the sums of layers, and extends sums that it has."""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np

from ntk_dist.arrays import FloatArray
from orchestrator.stages.context.joined_tiles import HeldBlocks
from orchestrator.stages.solve.cuts import Cut, cut_tiles
from orchestrator.sweep.blocks import blocks_within, groups_of
from orchestrator.sweep.layer_sets import HEAD

Term = tuple[str, ...]
"""Names of the blocks of one layer, which are added up before the layers are."""

Blocks = list[FloatArray]
"""One array for each tile."""

Key = tuple[str, tuple[Term, ...]]
"""Part of the problem, and the terms that were summed in it."""

MOST_HELD = 4
"""Sums of layers that a worker holds for each part. More would seldom be extended, and new memory costs more."""


@lru_cache(maxsize=4)  # a stage asks twice, for the training and for the evaluation examples
def summation_order(groups: tuple[str, ...], stored: tuple[str, ...]) -> tuple[Term, ...]:
    """Return the blocks of a layer set, layer by layer, in the order in which they are added.

    It is fixed by the layer set and by the blocks that are `stored`, in the model's order, so that a sum has the same
    bits whatever was summed before. Prefixes begin at the first layer and suffixes at the last one, each with the head
    if it is in the kernel: every one of them begins with the one before it.

    Raises:
        AssertionError: the stored blocks do not add up to the layer set.
    """
    blocks = blocks_within(groups, stored)
    if sum(len(groups_of(block)) for block in blocks) < len(groups):
        raise AssertionError("the stored blocks do not add up to the layer set")
    head = [(block,) for block in blocks if block == HEAD]
    below, stored_below = ([block for block in names if block != HEAD] for names in (blocks, stored))
    is_suffix = bool(below) and below[-1] == stored_below[-1] and below[0] != stored_below[0]
    layers = [tuple(members) for _, members in groupby(below, _layer)]
    return (*head, *(reversed(layers) if is_suffix else layers))


@lru_cache(maxsize=4096)  # as `groups_of`
def _layer(block: str) -> str:
    """Return the layer of a block; of one that spans several its name, by which it is added up apart."""
    layers = {group.partition(".")[0] for group in groups_of(block)}
    return layers.pop() if len(layers) == 1 else block


class KernelSums:
    """The most recent sums of layers and layer sets that a worker holds, tile by tile, as far as memory allows.

    They equal sums from scratch bit for bit: blocks of a layer are added one after the other, then layers.
    """

    def __init__(self) -> None:
        self._of: Hashable = None
        self._room = self._taken = 0
        self._layers: dict[Key, Blocks] = {}
        self._sums: dict[Key, Blocks] = {}

    def use(self, what: Hashable, room: int) -> None:
        """Hold sums of blocks of one problem, `what`, within a number of bytes; forget those of another problem."""
        if what != self._of:
            self._layers.clear()
            self._sums.clear()
            self._taken = 0
        self._of, self._room = what, room
        self._make_room(0)

    def square(
        self, tiles: Sequence[HeldBlocks], terms: tuple[Term, ...], size: int, rows_per_example: int, *, symmetric: bool
    ) -> FloatArray:
        """Return the sum of blocks K(train, train), (M, M), in Fortran order, to be overwritten.

        Args:
            tiles: artifacts of `gram` stages, each of which holds all blocks; of a symmetric kernel on and below the
                diagonal.
            terms: names of the blocks, in the order of `summation_order`.
            size: M.
            rows_per_example: rows of the kernel that an example gives.
            symmetric: whether the kernel is; then the lower triangle alone is filled.
        """
        total = np.zeros((size, size), order="F")
        cut = cut_tiles(tiles, (size, size), rows_per_example, symmetric=symmetric)
        for each, block in zip(cut, self._summed("train", cut, terms), strict=True):
            target = total[each.rows, each.columns]
            # A tile on the diagonal is its own transpose, and need not be transposed.
            target = target.T if each.strips else target
            for part in each.parts:
                target[part] = block[part]
        return total

    def rows(
        self,
        tiles: Sequence[HeldBlocks],
        terms: tuple[Term, ...],
        shape: tuple[int, int],
        rows_per_example: int,
        *,
        borrowed: bool = False,
    ) -> FloatArray:
        """Return the sum of blocks K(eval, train), (M_eval, M); `tiles`, `terms` and so on are those of `square`.

        `borrowed` says that it will only be read, and no more once other rows are asked for: then it may be memory of
        this object.
        """
        cut = cut_tiles(tiles, shape, rows_per_example, symmetric=False)
        blocks = self._summed("eval", cut, terms)
        if borrowed and len(blocks) == 1:
            return blocks[0]
        total = np.empty(shape)
        for each, block in zip(cut, blocks, strict=True):
            total[each.rows, each.columns] = block
        return total

    def _summed(self, part: str, cut: Sequence[Cut], terms: tuple[Term, ...]) -> Blocks:
        """Return for each tile in a part of the problem its sum of blocks."""
        needed = sum(8 * each.height * each.width for each in cut)
        begun = next((n for n in range(len(terms), 1, -1) if (part, terms[:n]) in self._sums), 0)
        blocks = self._sums[part, terms[:begun]] if begun else self._layer(part, terms[0], cut, needed)
        if rest := terms[max(begun, 1) :]:
            blocks = self._continued(part, blocks, rest, cut, needed)
            self._hold(self._sums, (part, terms), blocks, needed)
        return blocks

    def _continued(self, part: str, blocks: Blocks, rest: Sequence[Term], cut: Sequence[Cut], needed: int) -> Blocks:
        """Return the sum of blocks and those of further layers; the given blocks are not changed."""
        found = self._spare(part, blocks) or [np.empty(block.shape) for block in blocks]
        for term in rest:
            for each, into, before, addend in zip(
                cut, found, blocks, self._layer(part, term, cut, needed), strict=True
            ):
                each.add(before, addend, into)
            blocks = found
        return found

    def _layer(self, part: str, term: Term, cut: Sequence[Cut], needed: int) -> Blocks:
        """Return the sum over the blocks of a layer; one block is as it is in the store."""
        key = (part, (term,))
        if key in self._layers:
            return self._layers[key]
        found = []
        for each in cut:
            total, *others = (each.tile.array(block)[: each.height, : each.width] for block in term)
            into = np.empty(total.shape) if others else total
            for block in others:
                each.add(total, block, into)
                total = into
            found.append(total)
        if len(term) > 1:
            self._hold(self._layers, key, found, needed)
        return found

    def _hold(self, among: dict[Key, Blocks], key: Key, blocks: Blocks, n_bytes: int) -> None:
        if among is self._layers and self._taken + n_bytes > self._room:
            return  # sums are extended more often than layers recur
        self._make_room(n_bytes)
        if self._taken + n_bytes <= self._room:
            among[key] = blocks
            self._taken += n_bytes

    def _make_room(self, n_bytes: int) -> None:
        """Forget layers, and then the oldest sums, until the given bytes fit as well."""
        for held in (self._layers, self._sums):
            while held and self._taken + n_bytes > self._room:
                self._forget(held, next(iter(held)))

    def _spare(self, part: str, kept: Blocks) -> Blocks | None:
        """Forget the oldest sum of a part that holds the most sums allowed, and return its memory for reuse."""
        held = [key for key, blocks in self._sums.items() if key[0] == part and blocks is not kept]
        return self._forget(self._sums, held[0]) if len(held) >= MOST_HELD - 1 else None

    def _forget(self, among: dict[Key, Blocks], key: Key) -> Blocks:
        blocks = among.pop(key)
        self._taken -= sum(block.nbytes for block in blocks)
        return blocks
