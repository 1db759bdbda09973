"""What each block of a layer set's kernel contributes: its products with what gives the solutions of all lambdas."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.contributions import KeptContributions, dual_bases
from ntk_dist.solvers.kept_krylov import KeptKrylovPath
from ntk_dist.solvers.kept_path import KeptPath
from orchestrator.stages.context.blocks import kernel_blocks, tile_places
from orchestrator.stages.context.joined_tiles import HeldBlocks
from orchestrator.sweep.blocks import blocks_within

Blocks = Callable[[], Iterator[FloatArray]]

STRIP_ROWS = 128
"""Rows of a strip: few enough to leave little of the other triangle, and many enough to multiply them fast."""


def dual_contributions(
    groups: Sequence[str], kept: KeptPath | KeptKrylovPath, tiles: Sequence[HeldBlocks], rows_per_example: int
) -> KeptContributions:
    """Return what gives the contributions of the stored blocks within a layer set, in the order of the store.

    Each block is read tile by tile and never held as a whole.

    Args:
        groups: of the layer set.
        kept: of its kernel, symmetric.
        tiles: artifacts of `gram` stages between training examples, on and below the diagonal.
        rows_per_example: rows of the kernel that an example gives.
    """
    bases = dual_bases(kept)
    M, t, m = bases.shape
    side_by_side = np.ascontiguousarray(bases.reshape(M, t * m))
    blocks = contributing(groups, tiles)
    forms = np.zeros((len(blocks), t, m, m))
    for tile, rows, columns in tile_places(tiles, (M, M), rows_per_example):
        for number, name in enumerate(blocks):
            block = tile.array(name)[: rows.stop - rows.start, : columns.stop - columns.start]
            for part, beside in _strips(rows, columns):
                left, right = side_by_side[rows][part], side_by_side[columns]
                forms[number] += _of_targets(left, block[part, beside] @ right[beside], t, transposed=True)
                if rows == columns:
                    forms[number] += _of_targets(left, block[part, part] @ right[part], t, transposed=False)
    return KeptContributions(forms)


def _strips(rows: slice, columns: slice) -> Iterator[tuple[slice, slice]]:
    """Yield parts of a tile's rows with the columns that stand for the other triangle too.

    A tile on the diagonal is its own transpose: of that only what lies left of the diagonal blocks is multiplied.
    """
    size = rows.stop - rows.start
    if rows != columns:
        yield slice(0, size), slice(0, columns.stop - columns.start)
        return
    for start in range(0, size, STRIP_ROWS):
        yield slice(start, min(start + STRIP_ROWS, size)), slice(0, start)


def _of_targets(left: FloatArray, product: FloatArray, t: int, *, transposed: bool) -> FloatArray:
    """Return W^T P of each target, (t, m, m), with its transpose added where asked, for W and P (rows, t m)."""
    W, P = (each.reshape(len(each), t, -1).transpose(1, 0, 2) for each in (left, product))
    found: FloatArray = np.matmul(W.transpose(0, 2, 1), P)
    return found + found.transpose(0, 2, 1) if transposed else found


def primal_contributions(
    groups: Sequence[str], train: FloatArray, weights: FloatArray, features: Callable[[Sequence[str]], Blocks]
) -> KeptContributions:
    """Return the same from streamed feature rows, for every group of a layer set.

    Args:
        groups: of the layer set.
        train: J W, (M, m).
        weights: W, (p, m), whose rows stand one group after the other.
        features: returns a stream of the feature rows (rows, p_g) of training examples for some groups.
    """
    forms, products, start = [], [], 0
    for group in groups:
        moved = np.zeros_like(train)
        done = 0
        for block in features((group,))():
            own = weights[start : start + block.shape[1]]
            moved[done : done + len(block)] = block @ own
            done += len(block)
        start += len(own)
        forms.append(own.T @ own)
        products.append(train.T @ moved)
    return KeptContributions(np.array(forms)[:, None], np.array(products)[:, None])


def contributing(groups: Sequence[str], tiles: Sequence[HeldBlocks]) -> tuple[str, ...]:
    """Return the names of the blocks whose contributions are kept; without tiles every group is one."""
    return blocks_within(groups, kernel_blocks(tiles[0])) if tiles else tuple(groups)
