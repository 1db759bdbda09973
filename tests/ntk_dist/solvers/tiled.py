"""Matrices cut into tiles, as sweeps store them."""

import numpy as np

from ntk_dist.kernel.tile_operator import TileOperator


def tiled(K: np.ndarray, step: int, *, symmetric: bool = True) -> TileOperator:
    """K in tiles of `step` rows and columns; of a symmetric one those on and below the diagonal alone."""
    m, n = K.shape
    places = [
        (slice(i, min(i + step, m)), slice(j, min(j + step, n)))
        for i in range(0, m, step)
        for j in range(0, i + 1 if symmetric else n, step)
    ]
    tiles = [(rows, columns, lambda rows=rows, columns=columns: K[rows, columns]) for rows, columns in places]
    return TileOperator(tiles, K.shape, symmetric=symmetric)


def spectrum_kernel(eigenvalues: np.ndarray, seed: int = 0) -> np.ndarray:
    """A kernel with these eigenvalues and random eigenvectors."""
    M = len(eigenvalues)
    Q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((M, M)))
    K = (Q * eigenvalues) @ Q.T
    return (K + K.T) / 2
