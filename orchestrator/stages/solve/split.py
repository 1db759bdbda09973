"""The kernel split into the head's block and those of the features below it, and their shares in moving the outputs.

At the pretrained point gradient descent on the squared loss moves the outputs along K r, with r = y - f_0 the residual
before training, and K = P + F: what the head's own weights contribute, and what all other trained parameters do (arXiv
2405.16747).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.tile_operator import TileOperator
from orchestrator.stages.context.blocks import tile_places
from orchestrator.stages.context.joined_tiles import HeldBlocks
from orchestrator.sweep.layer_sets import HEAD

Blocks = Callable[[], Iterator[FloatArray]]


@dataclass(frozen=True, eq=False)
class _Moves:
    """Products of some kernel blocks with the residual of the training examples.

    Attributes:
        train: K(train, train) r, (M, k).
        evaluation: K(eval, train) r, (M_eval, k).
        trace: trace of K(train, train).
    """

    train: FloatArray
    evaluation: FloatArray
    trace: float


def dual_shares(
    groups: Sequence[str],
    K: FloatArray,
    evaluation: FloatArray,
    residual: FloatArray,
    *,
    tiles: Sequence[HeldBlocks],
    eval_tiles: Sequence[HeldBlocks],
    rows_per_example: int,
    symmetric: bool,
) -> dict[str, float]:
    """Return the columns of `cells` about the split of a kernel; none if the head is not in the kernel.

    They are nan if the kernel has only the head. The head's block is read tile by tile and never held as a whole.

    Args:
        groups: of the layer set.
        K: their kernel (M, M), in Fortran order; of a symmetric one only the lower triangle is read.
        evaluation: its rows (M_eval, M) for evaluation.
        residual: r, (M, k).
        tiles: artifacts of `gram` stages between training examples, of a symmetric kernel on and below the diagonal.
        eval_tiles: those between evaluation and training examples.
        rows_per_example: rows of the kernel that an example gives.
        symmetric: whether the kernel is.
    """
    if HEAD not in groups:
        return {}
    moved = blas.dsymm(1.0, K, residual, lower=1) if symmetric else K @ residual
    whole = _Moves(moved, evaluation @ residual, float(np.trace(K)))

    M = len(residual)
    train, evaluated, trace = np.zeros_like(residual), np.zeros_like(whole.evaluation), 0.0
    for tile, rows, columns in tile_places(tiles, (M, M), rows_per_example):
        block = tile.array(HEAD)[: rows.stop - rows.start, : columns.stop - columns.start]
        train[rows] += block @ residual[columns]
        if rows == columns:
            trace += float(np.trace(block))
        elif symmetric:
            train[columns] += block.T @ residual[rows]
    for tile, rows, columns in tile_places(eval_tiles, (len(evaluation), M), rows_per_example):
        block = tile.array(HEAD)[: rows.stop - rows.start, : columns.stop - columns.start]
        evaluated[rows] += block @ residual[columns]
    return _shares(groups, whole, _Moves(train, evaluated, trace))


def primal_shares(
    groups: Sequence[str], features: Callable[[Sequence[str]], tuple[Blocks, Blocks]], residual: FloatArray
) -> dict[str, float]:
    """Return the columns of `dual_shares`, from streamed feature rows.

    Args:
        groups: of the layer set.
        features: returns for some groups streams of their rows (rows, p), of training and evaluation examples.
        residual: r, (M, k).
    """
    if HEAD not in groups:
        return {}
    return _shares(groups, *(_streamed(*features(part), residual) for part in (groups, (HEAD,))))


def operator_shares(
    groups: Sequence[str],
    operators: Callable[[Sequence[str]], tuple[TileOperator, TileOperator]],
    residual: FloatArray,
) -> dict[str, float]:
    """Return the columns of `dual_shares` for a symmetric kernel, from products alone.

    Args:
        groups: of the layer set.
        operators: returns for some groups their kernel between training examples, and its rows for evaluation.
        residual: r, (M, k).
    """
    if HEAD not in groups:
        return {}
    pairs = (operators(part) for part in (groups, (HEAD,)))
    moves = (_Moves(train.matmat(residual), evaluation.matmat(residual), train.trace()) for train, evaluation in pairs)
    return _shares(groups, *moves)


def _streamed(train: Blocks, evaluation: Blocks, residual: FloatArray) -> _Moves:
    """Return J (J^T r) for the rows J of both splits, and the trace of J J^T."""
    direction: FloatArray | float = 0.0
    trace, start = 0.0, 0
    for block in train():
        direction = direction + block.T @ residual[start : start + len(block)]
        trace += float(np.vdot(block, block))
        start += len(block)
    moved = [np.concatenate([block @ direction for block in blocks()]) for blocks in (train, evaluation)]
    return _Moves(moved[0], moved[1], trace)


def _shares(groups: Sequence[str], whole: _Moves, head: _Moves) -> dict[str, float]:
    alone = len(groups) == 1
    return {
        "feature_share_train": _share(whole.train, head.train, alone=alone),
        "feature_share_eval": _share(whole.evaluation, head.evaluation, alone=alone),
        "feature_trace_share": _share(np.array(whole.trace), np.array(head.trace), alone=alone),
    }


def _share(whole: FloatArray, head: FloatArray, *, alone: bool) -> float:
    size = float(np.linalg.norm(whole))
    return float("nan") if alone or not size else float(np.linalg.norm(whole - head)) / size
