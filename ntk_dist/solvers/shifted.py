"""Matrices T for which T + lambda I is cheap to solve: kernels in the basis of their decomposition."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.linalg import blas, lapack

from ntk_dist.arrays import FloatArray


class ShiftedMatrix(Protocol):
    """A square matrix T (q, q)."""

    def solve(self, right: FloatArray, shift: float) -> FloatArray:
        """Return (T + shift I)^{-1} right, (q, k), for right (q, k); nan if singular."""

    def quadratic_forms(self, z: FloatArray) -> FloatArray:
        """Return z_c^T T z_c, (k,), for the columns of z (q, k); nan where T says nothing of the weights."""

    def arrays(self) -> dict[str, FloatArray]:
        """Return the arrays that it consists of, by the names of its attributes."""


@dataclass(frozen=True, eq=False)
class TridiagonalMatrix:
    """T symmetric and tridiagonal, of `diagonal` (q,) and `off_diagonal` (q - 1,); diagonal where the latter is 0."""

    diagonal: FloatArray
    off_diagonal: FloatArray

    def times(self, z: FloatArray) -> FloatArray:
        """Return T z for z (q, k)."""
        product: FloatArray = self.diagonal[:, None] * z
        product[1:] += self.off_diagonal[:, None] * z[:-1]
        product[:-1] += self.off_diagonal[:, None] * z[1:]
        return product

    def solve(self, right: FloatArray, shift: float) -> FloatArray:
        """See `ShiftedMatrix.solve`: O(q k)."""
        return solve_shifted(self.diagonal, self.off_diagonal, right, shift)

    def quadratic_forms(self, z: FloatArray) -> FloatArray:
        """Return z_c^T T z_c, (k,), which is not negative for a kernel."""
        forms: FloatArray = np.maximum(np.einsum("qk,qk->k", z, self.times(z)), 0.0)
        return forms

    def arrays(self) -> dict[str, FloatArray]:
        """Return `diagonal` and `off_diagonal`."""
        return {"diagonal": self.diagonal, "off_diagonal": self.off_diagonal}


@dataclass(frozen=True, eq=False)
class BandMatrix:
    """T symmetric, of the diagonals `band` (width + 1, q) on and below the main one, each from its first column on."""

    band: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "band", np.asfortranarray(self.band))

    def times(self, z: FloatArray) -> FloatArray:
        """Return T z for z (q, k)."""
        product = np.empty(z.shape, order="F")
        for column in range(z.shape[1]):
            product[:, column] = blas.dsbmv(len(self.band) - 1, 1.0, self.band, z[:, column], lower=1)
        return product

    def solve(self, right: FloatArray, shift: float) -> FloatArray:
        """See `ShiftedMatrix.solve`: O(q width^2) and O(q width k)."""
        shifted = self.band.copy(order="F")
        shifted[0] += shift
        z: FloatArray
        _, z, info = lapack.dpbsv(shifted, right, lower=1, overwrite_ab=1)
        if info:
            # As in `solve_shifted`.
            width = len(self.band) - 1
            _, _, z, info = lapack.dgbsv(width, width, self._both_sides(shift), right, overwrite_ab=1)
        return np.full_like(right, np.nan) if info else z

    def quadratic_forms(self, z: FloatArray) -> FloatArray:
        """Return z_c^T T z_c, (k,), which is not negative for a kernel."""
        forms: FloatArray = np.maximum(np.einsum("qk,qk->k", z, self.times(z)), 0.0)
        return forms

    def arrays(self) -> dict[str, FloatArray]:
        """Return `band`."""
        return {"band": self.band}

    def _both_sides(self, shift: float) -> FloatArray:
        """Return T + shift I as LAPACK's gb routines take it, with their room for pivoting, (3 width + 1, q)."""
        width, q = len(self.band) - 1, self.band.shape[1]
        both = np.zeros((3 * width + 1, q), order="F")
        both[2 * width :] = self.band
        both[2 * width] += shift
        for below in range(1, width + 1):
            both[2 * width - below, below:] = self.band[below, : q - below]
        return both


@dataclass(frozen=True, eq=False)
class QuasiTriangularMatrix:
    """T of a real Schur form, `schur` (q, q)."""

    schur: FloatArray

    @cached_property
    def eigenvalues(self) -> np.ndarray[tuple[int], np.dtype[np.complex128]]:
        """Eigenvalues, (q,), complex, in no particular order."""
        values = np.diagonal(self.schur).astype(np.complex128)
        below, above = np.diagonal(self.schur, -1), np.diagonal(self.schur, 1)
        # LAPACK leaves each pair a ± ib as the block [[a, x], [y, a]] with xy = -b^2.
        b = np.sqrt(np.abs(below)) * np.sqrt(np.abs(above))
        values[:-1] += 1j * np.where(below != 0, b, 0.0)
        values[1:] -= 1j * np.where(below != 0, b, 0.0)
        return values

    def solve(self, right: FloatArray, shift: float) -> FloatArray:
        """See `ShiftedMatrix.solve`: O(q^2 k)."""
        # T x + x (shift I) = c, the smallest of Sylvester equations.
        x, scale, info = lapack.dtrsyl(self.schur, shift * np.eye(right.shape[1]), right)
        return np.full_like(right, np.nan) if info else x / scale

    def quadratic_forms(self, z: FloatArray) -> FloatArray:
        """Return nan, (k,): |d| is no function of an unsymmetric kernel."""
        return np.full(z.shape[1], np.nan)

    def arrays(self) -> dict[str, FloatArray]:
        """Return `schur`."""
        return {"schur": self.schur}


def solve_shifted(diagonal: FloatArray, off: FloatArray, right: FloatArray, shift: float) -> FloatArray:
    """Return (T + shift I)^{-1} right, (n, k), for T (n, n) of `diagonal` (n,) and `off` (n - 1,); nan if singular."""
    diagonal = diagonal + shift
    if not len(diagonal):
        return right.copy()
    if len(diagonal) == 1:  # the LAPACK wrappers refuse empty off-diagonals
        return right / diagonal if diagonal[0] else np.full_like(right, np.nan)
    z: FloatArray
    _, _, z, info = lapack.dptsv(diagonal, off, right)
    if info:
        # Rounding left an eigenvalue of a singular kernel below -lambda: Gaussian elimination with
        # pivoting still solves the system, unless it is singular itself.
        _, _, _, z, info = lapack.dgtsv(off, diagonal, off, right)
    return np.full_like(right, np.nan) if info else z
