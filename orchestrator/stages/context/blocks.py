"""From artifacts to the matrices of one layer set: sums of stored tiles, and streams of feature rows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.features import KernelKind, made_features
from ntk_dist.kernel.rows import Rows, read_columns
from orchestrator.stages.context.joined_tiles import HeldBlocks
from orchestrator.store.artifacts import Artifact
from orchestrator.sweep.blocks import blocks_within, groups_of

if TYPE_CHECKING:
    from ntk_dist.kernel.tile_operator import Tile  # loads scipy, which estimates do without

SCORES = "scores"
"""Array of initial outputs f_0, (examples, rows per example): of the examples of a capture, of the rows of a tile."""

DIAGONAL = "diagonal:"
"""Before the name of a block: each row's example's own block of K(eval, eval), (examples, r, r)."""

T = TypeVar("T", bound=HeldBlocks)

BLOCK_BYTES = 32 << 20
"""Memory of a block of feature rows; fixed, because it is part of the order of sums."""


def sum_tiles(
    tiles: Sequence[HeldBlocks], groups: Sequence[str], shape: tuple[int, int], rows_per_example: int
) -> FloatArray:
    """Return the sum of the kernel blocks of some groups, (M, M) or (M_eval, M), in Fortran order.

    Tiles are added in the order given, blocks in that of the store, so the sum has the same bits wherever it is made.
    For a symmetric kernel only the tiles on and below the diagonal exist, and only the lower triangle is filled.

    Args:
        tiles: artifacts of `gram` stages; rows and columns beyond `shape` are left out. Several may hold the same rows
            and columns for different blocks, of which the largest within `groups` are added up.
        groups: names of the groups of the layer set.
        shape: rows and columns of the result.
        rows_per_example: rows of the kernel that an example gives.
    """
    total = np.zeros(shape, order="F")
    filled: set[tuple[int, int]] = set()
    for rows, columns, read in summed_tiles(tiles, groups, shape, rows_per_example):
        place = rows.start, columns.start
        if place in filled:
            total[rows, columns] += read()
        else:
            total[rows, columns] = read()
        filled.add(place)
    return total


def summed_tiles(
    tiles: Sequence[HeldBlocks], groups: Sequence[str], shape: tuple[int, int], rows_per_example: int
) -> "list[Tile]":
    """Return the place and a reader of the sum over `groups`, for each artifact that holds some of them.

    The arguments are those of `sum_tiles`.
    """
    found: list[Tile] = []
    held: defaultdict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    stored: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for tile, rows, columns in tile_places(tiles, shape, rows_per_example):
        stored[rows.start, columns.start] += kernel_blocks(tile)
    for tile, rows, columns in tile_places(tiles, shape, rows_per_example):
        chosen = blocks_within(groups, stored[rows.start, columns.start])
        here = [block for block in kernel_blocks(tile) if block in chosen]
        held[rows.start, columns.start].update(group for block in here for group in groups_of(block))
        if here:
            read = partial(_read_sum, tile, here, rows.stop - rows.start, columns.stop - columns.start)
            found.append((rows, columns, read))
    if any(counts != Counter(groups) for counts in held.values()):
        raise AssertionError("some tile holds none of the blocks that are asked for, or one that another holds too")
    return found


def _read_sum(tile: HeldBlocks, blocks: Sequence[str], height: int, width: int) -> FloatArray:
    first: FloatArray = tile.array(blocks[0])[:height, :width]
    if len(blocks) == 1:
        return first
    # Added up in the tile's own memory order; only the sum is turned into Fortran order, once.
    block = np.array(first)
    for name in blocks[1:]:
        block += tile.array(name)[:height, :width]
    return block


def kernel_blocks(tile: HeldBlocks) -> list[str]:
    """Return the names of the blocks that a tile holds, in the order of the store."""
    return [name for name in tile.names() if name != SCORES and not name.startswith(DIAGONAL)]


def tile_places(tiles: Sequence[T], shape: tuple[int, int], rows_per_example: int) -> Iterator[tuple[T, slice, slice]]:
    """Yield each tile with its rows and columns in a matrix; parts beyond `shape` are cut off."""
    for tile in tiles:
        rows, columns = (
            slice(*(min(place * rows_per_example, size) for place in tile.facts[side]))
            for side, size in zip(("rows", "columns"), shape, strict=True)
        )
        yield tile, rows, columns


def feature_blocks(
    shards: Sequence[Artifact],
    groups: Sequence[str],
    *,
    kind: KernelKind,
    outputs_per_example: int,
    n_examples: int,
    max_bytes: int,
) -> Callable[[], Iterator[FloatArray]]:
    """Return a function that streams the feature rows of the first `n_examples`, (rows, p) float64 at a time.

    Args:
        shards: artifacts of `capture` stages, in order.
        groups: names of the groups, whose columns stand one group after the other.
        kind: sgd takes the Jacobian rows, sign their signs.
        outputs_per_example: C for the trace-averaged kernel, else 1.
        n_examples: examples to stream.
        max_bytes: most memory of a block; blocks hold whole examples, at least one.
    """

    def stream() -> Iterator[FloatArray]:
        left = n_examples
        for shard in shards:
            rows = [shard.rows(group) for group in groups]
            per_example = int(shard.facts["rows"]) // (shard.facts["stop"] - shard.facts["start"])
            width = sum(part.shape[1] for part in rows) * 8 * per_example
            step = max(1, max_bytes // (3 * width))
            here = min(left, rows[0].shape[0] // per_example)
            for start in range(0, here, step):
                chosen = slice(start * per_example, min(start + step, here) * per_example)
                yield np.hstack([
                    made_features(
                        _read(part[chosen]),
                        kind_side="sign" if kind == "sign" else "raw",
                        outputs_per_example=outputs_per_example,
                    )
                    for part in rows
                ])  # fmt: skip
            left -= here
            if not left:
                return

    return stream


def _read(rows: Rows) -> FloatArray:
    read = np.empty(rows.shape)
    read_columns(rows, slice(None), read)
    return read
