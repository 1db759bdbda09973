"""K = Q T Q^T with T tridiagonal: the spectrum and the ridge path without eigenvectors."""

from functools import cached_property

import numpy as np
from scipy.linalg import lapack

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.reduced import ReducedDecomposition
from ntk_dist.solvers.shifted import TridiagonalMatrix

_PANEL = 16
"""Columns that sytrd reduces before it updates the rest of K; the 32 that it asks for take 14 % longer at M = 512."""


class TridiagonalDecomposition(ReducedDecomposition[TridiagonalMatrix]):
    """K (M, M) reduced to tridiagonal form by LAPACK sytrd; each further lambda costs O(M)."""

    def _reduce(self, A: FloatArray) -> tuple[TridiagonalMatrix, FloatArray, FloatArray]:
        if len(A) == 1:  # the LAPACK wrappers refuse empty off-diagonals
            return TridiagonalMatrix(A[0].copy(), np.empty(0)), A, np.empty(0)
        A, diagonal, off, tau, _ = lapack.dsytrd(A, lower=1, lwork=_PANEL * len(A), overwrite_a=1)
        return TridiagonalMatrix(diagonal, off), A, tau

    @cached_property
    def eigenvalues(self) -> FloatArray:
        """Eigenvalues of K, ascending, (M,), by LAPACK sterf."""
        return tridiagonal_eigenvalues(self.matrix)


def tridiagonal_eigenvalues(T: TridiagonalMatrix) -> FloatArray:
    """Return the eigenvalues of T (M, M), ascending, by LAPACK sterf."""
    if len(T.diagonal) == 1:
        return T.diagonal.copy()
    values: FloatArray
    values, info = lapack.dsterf(T.diagonal, T.off_diagonal)
    if info:
        raise np.linalg.LinAlgError(f"sterf left {info} eigenvalues unconverged")
    return values
