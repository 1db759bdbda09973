"""K = U S U^T: the eigenvectors, which give leave-one-out residuals and label energy per mode."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal

import numpy as np
import scipy.linalg

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.kernel_matrix import as_lapack, check_finite
from ntk_dist.solvers.fitted_start import FittedStart
from ntk_dist.solvers.kept_path import KeptLeftOut, KeptPath, keep_path, mode_weights, start_in_rows, weights_basis
from ntk_dist.solvers.kept_variance import keep_variance
from ntk_dist.solvers.leave_one_out import block_diagonals, solve_blocks
from ntk_dist.solvers.ridge import RidgePath, check_path, degrees_of_freedom, dual_path, lambda_major
from ntk_dist.solvers.shifted import TridiagonalMatrix

SYEVD_LIMIT = 32_766
"""Largest number of rows M for which the workspace of syevd, 1 + 6 M + 2 M^2 numbers, fits a 32-bit integer."""

Eigh = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""Eigenvalues, ascending, (M,), and eigenvectors of A (M, M) in Fortran order, whose lower triangle it reads."""


def driver_of(size: int) -> Literal["evd", "evr"]:
    """Return which of LAPACK's drivers decomposes M = `size` rows: syevd, or syevr where the former overflows."""
    return "evd" if size <= SYEVD_LIMIT else "evr"


def lapack_eigh(A: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return eigenvalues (M,) and eigenvectors of A (M, M) in Fortran order, which is overwritten."""
    values: FloatArray
    vectors: FloatArray
    values, vectors = scipy.linalg.eigh(A, lower=True, overwrite_a=True, check_finite=False, driver=driver_of(len(A)))
    return values, vectors


class EigenDecomposition:
    """K (M, M) with all eigenvectors, by LAPACK or by what `eigh` gives.

    Only the lower triangle of K is read. K is overwritten by the eigenvectors when it is in Fortran order
    (another order is copied) and must not be used afterwards. eigenvectors: (M, M), one a column, in the
    order of the ascending eigenvalues (M,). Raises KernelShapeError, NonFiniteError, and what `eigh` raises.
    """

    def __init__(self, K: FloatArray, eigh: Eigh = lapack_eigh) -> None:
        A = as_lapack(K)
        check_finite(A, lower_only=True)
        self.size = len(A)
        self.trace = float(np.trace(A))
        self._eigenvalues, self.eigenvectors = eigh(A)
        self.matrix = TridiagonalMatrix(self._eigenvalues, np.zeros(self.size - 1))
        self._rows: FloatArray | None = None
        self._rows_in_modes = np.empty((0, self.size))

    @property
    def eigenvalues(self) -> FloatArray:
        """Eigenvalues of K, ascending, (M,)."""
        return self._eigenvalues

    def ridge_path(
        self,
        residual: FloatArray,
        lambdas: FloatArray,
        *,
        leave_one_out: bool = False,
        rows_per_example: int = 1,
        start: FittedStart | None = None,
    ) -> RidgePath:
        """See `Decomposition.ridge_path`.

        Leaving out example i, its residual is ([(K + lambda I)^{-1}]_ii)^{-1} alpha_i, where i stands for all
        of its rows (Rasmussen and Williams 2006, equation 5.12, for one row). With a fitted start alpha_i has the
        residual of the start without i, r + f_0 - F_i, in the place of r.
        """
        residual, lambdas = check_path(residual, lambdas, self.size)
        alphas, squared_distance = self.solve(residual, lambdas)
        weights = self._inverse(lambdas)
        projected = None if start is None else start.times_transposed(self.eigenvectors)
        left_out = start_dof = None
        if start is not None and projected is not None:
            start_dof = lambdas * _weighted(weights, projected) if start.linear else np.full(len(lambdas), np.nan)
        if leave_one_out:
            inverse = block_diagonals(self.eigenvectors, weights, rows_per_example)
            right = alphas
            if start is not None and projected is not None:
                right = alphas + start.changes_through(self.eigenvectors, projected, weights)
            left_out = solve_blocks(inverse, right)
        dof = degrees_of_freedom(self.eigenvalues, lambdas)
        return dual_path(alphas, squared_distance, dof, lambdas, leave_one_out=left_out, start_dof=start_dof)

    def keep(
        self,
        residual: FloatArray,
        rows: Iterable[FloatArray],
        *,
        leave_one_out: bool = False,
        rows_per_example: int = 1,
        start: FittedStart | None = None,
        variance: bool = False,
        diagonal: FloatArray | None = None,
    ) -> KeptPath:
        """See `Decomposition.keep`."""
        blocks = list(rows)
        kept = keep_path(self.matrix, self.rotated(residual), self.eigenvalues, self.rotated_back, blocks)
        if variance:
            squares = np.concatenate([self.in_modes(block) ** 2 for block in blocks])
            kept = replace(kept, variance=keep_variance(self.eigenvalues, squares, diagonal))
        if start is not None:
            kept = kept.with_start(self.start_of(start_in_rows(start)))
        if not leave_one_out:
            return kept
        basis = weights_basis(self.eigenvalues, primal=False)
        inverses = block_diagonals(self.eigenvectors, basis.T, rows_per_example)
        changes = None
        if start is not None:
            projected = start.times_transposed(self.eigenvectors)
            changes = start.changes_through(self.eigenvectors, projected, basis.T)
        return replace(kept, left_out=KeptLeftOut(basis, inverses, changes))

    def start_of(self, columns: FloatArray | None) -> FloatArray:
        """Return a vector (M, 1) that stands for U^T X, X (M, n); nan if there is no X: see `KeptPath.start`."""
        if columns is None:
            return np.full((self.size, 1), np.nan)
        sizes: FloatArray = np.linalg.norm(self.rotated(columns), axis=1, keepdims=True)
        return sizes

    def rotated(self, columns: FloatArray) -> FloatArray:
        """Return U^T B for B (M, N)."""
        modes: FloatArray = self.eigenvectors.T @ columns
        return modes

    def rotated_back(self, columns: FloatArray) -> FloatArray:
        """Return U B for B (M, N)."""
        product: FloatArray = self.eigenvectors @ columns
        return product

    def in_modes(self, rows: FloatArray) -> FloatArray:
        """Return B U for rows B (m, M), which must not change: those of the array that came last are held."""
        if self._rows is not rows:
            self._rows, self._rows_in_modes = rows, rows @ self.eigenvectors
        return self._rows_in_modes

    def quadratic_form(self, targets: FloatArray) -> float:
        """Return tr Y^T K Y for targets Y (M, k)."""
        return float(self.eigenvalues @ self.mode_energy(targets))

    def mode_energy(self, targets: FloatArray) -> FloatArray:
        """Return the squared projections of targets (M, k) on each eigenvector, (M,), summed over the k."""
        energy: FloatArray = ((self.eigenvectors.T @ targets) ** 2).sum(axis=1)
        return energy

    def solve(self, right: FloatArray, lambdas: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `ShiftedSolver.solve`: one product with the eigenvectors for all lambdas."""
        modes = self.eigenvectors.T @ right
        scaled = self._inverse(lambdas)[:, :, None] * modes
        quadratic = np.einsum("i,lik,lik->l", self.eigenvalues, scaled, scaled)
        columns = scaled.transpose(1, 0, 2).reshape(len(modes), -1)
        # Written as a product of transposes so that the result comes in Fortran order.
        solved = (columns.T @ self.eigenvectors.T).T
        return lambda_major(solved, len(lambdas)), np.maximum(quadratic, 0.0)

    def inverse_form(self, right: FloatArray, lambdas: FloatArray) -> FloatArray:
        """See `ShiftedSolver.inverse_form`."""
        return _weighted(self._inverse(lambdas), (self.eigenvectors.T @ right)[None])

    def _inverse(self, lambdas: FloatArray) -> FloatArray:
        return mode_weights(self.eigenvalues, lambdas, primal=False)


def _weighted(weights: FloatArray, projected: FloatArray) -> FloatArray:
    """Return sum_{c,i} w_li |P_ci|^2, (L,), for weights w (L, r) and projections P (R, r, q)."""
    sums: FloatArray = weights @ np.einsum("cij,cij->i", projected, projected)
    return sums
