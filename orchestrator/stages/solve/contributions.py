"""What each block of a layer set's kernel contributes: its products with what gives the solutions of all lambdas."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.linalg import blas

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.contributions import KeptContributions, dual_bases
from ntk_dist.solvers.kept_krylov import KeptKrylovPath
from ntk_dist.solvers.kept_path import KeptPath
from orchestrator.stages.context.blocks import kernel_blocks, tile_places
from orchestrator.stages.context.joined_tiles import HeldBlocks
from orchestrator.sweep.blocks import blocks_within

Blocks = Callable[[], Iterator[FloatArray]]


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
    W = np.asfortranarray(bases.reshape(M, t * m))
    blocks = contributing(groups, tiles)
    forms = np.zeros((len(blocks), t, m, m))
    for tile, rows, columns in tile_places(tiles, (M, M), rows_per_example):
        for number, name in enumerate(blocks):
            block = tile.array(name)[: rows.stop - rows.start, : columns.stop - columns.start]
            product = _half_product(block, W[rows]) if rows == columns else block @ W[columns]
            half = _of_targets(W[rows], product, t)
            forms[number] += half + half.transpose(0, 2, 1)
    return KeptContributions(forms)


def _half_product(block: FloatArray, W: FloatArray) -> FloatArray:
    """Return H W, for W (rows, n) and H the triangle with half the diagonal that a symmetric block is H + H^T of."""
    # The transpose of what lies row by row in memory is in Fortran order, which trmm takes as it is.
    product: FloatArray = blas.dtrmm(1.0, block.T, W)
    product -= (np.diagonal(block) / 2)[:, None] * W
    return product


def _of_targets(W: FloatArray, product: FloatArray, t: int) -> FloatArray:
    """Return W^T P of each target, (t, m, m), for W and P (rows, t m)."""
    left, right = (each.reshape(len(each), t, -1).transpose(1, 0, 2) for each in (W, product))
    found: FloatArray = np.matmul(left.transpose(0, 2, 1), right)
    return found


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
