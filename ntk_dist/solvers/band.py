"""K = Q T Q^T with T a band: the spectrum and the ridge path without eigenvectors, at the speed of products."""

from functools import cached_property

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.band_choice import BAND_FROM, BAND_WIDTH
from ntk_dist.solvers.reduced import ReducedDecomposition
from ntk_dist.solvers.shifted import BandMatrix, TridiagonalMatrix
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition, tridiagonal_eigenvalues
from ntk_dist.solvers.two_stage import find_two_stage


class BandDecomposition(ReducedDecomposition[BandMatrix]):
    """K (M, M) reduced to a band by LAPACK sytrd_sy2sb; each further lambda costs O(M width^2).

    sytrd reads the matrix for each of its columns, and waits for memory. This is made of products of the matrix with
    `width` vectors at a time, the diagonals below the main one. Needs a library with `find_two_stage`.
    """

    def __init__(self, K: FloatArray, width: int = BAND_WIDTH) -> None:
        self._width = width
        super().__init__(K)

    def _reduce(self, A: FloatArray) -> tuple[BandMatrix, FloatArray, FloatArray]:
        width = min(self._width, len(A) - 1)
        if not width:
            return BandMatrix(A.copy()), A, np.empty(0)
        routines = find_two_stage()
        if routines is None:
            raise AssertionError("this LAPACK reduces nothing to a band: take TridiagonalDecomposition")
        band, tau = routines.to_band(A, width)
        return BandMatrix(band), A, tau

    @cached_property
    def eigenvalues(self) -> FloatArray:
        """Eigenvalues of K, ascending, (M,), by LAPACK sytrd_sb2st and sterf."""
        routines = find_two_stage()
        if self.size == 1 or routines is None:
            alone: FloatArray = self.matrix.band[0].copy()
            return alone
        return tridiagonal_eigenvalues(TridiagonalMatrix(*routines.to_tridiagonal(self.matrix.band)))


def reduce_symmetric(K: FloatArray) -> BandDecomposition | TridiagonalDecomposition:
    """Return the decomposition without eigenvectors that is faster for a kernel K (M, M) of its size.

    K is overwritten when it is in Fortran order. A LAPACK that reduces nothing to a band takes the tridiagonal form
    for every size. Raises KernelShapeError, NonFiniteError.
    """
    if len(K) < BAND_FROM or find_two_stage() is None:
        return TridiagonalDecomposition(K)
    return BandDecomposition(K)
