"""Diagonal blocks of matrix functions, from which leave-one-example-out residuals follow."""

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.kernel_matrix import KernelShapeError

# Entries of the products held at a time: 32 MiB.
_CHUNK = 2**22


def block_diagonals(vectors: FloatArray, weights: FloatArray, rows_per_example: int) -> FloatArray:
    """Return the diagonal blocks (L, m, C, C) of V diag(w_l) V^T for V (m*C, r) and weights (L, r).

    C is `rows_per_example`. All l share one matrix product.
    """
    n_rows, r = vectors.shape
    C = rows_per_example
    if n_rows % C:
        raise KernelShapeError(f"{n_rows} rows do not hold whole examples of {C} rows each")
    blocks = np.empty((len(weights), n_rows // C, C, C))
    step = max(1, _CHUNK // (C * C * r))
    for start in range(0, n_rows // C, step):
        part = vectors[start * C : (start + step) * C].reshape(-1, C, r)
        products = part[:, :, None, :] * part[:, None, :, :]
        sums = products.reshape(-1, r) @ weights.T
        blocks[:, start : start + step] = sums.T.reshape(len(weights), -1, C, C)
    return blocks


def solve_blocks(blocks: FloatArray, right: FloatArray) -> FloatArray:
    """Return the solutions (L, m*C, k) of the systems blocks (L, m, C, C) with right sides (L, m*C, k)."""
    n_lambdas, m, C, _ = blocks.shape
    if C == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            divided: FloatArray = right / blocks[:, :, 0]
        return divided
    grouped = right.reshape(n_lambdas, m, C, right.shape[-1])
    return np.asarray(np.linalg.solve(blocks, grouped), dtype=np.float64).reshape(right.shape)
