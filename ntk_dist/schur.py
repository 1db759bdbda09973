"""K = Z T Z^T with T quasi-triangular: kernels that are not symmetric."""

from functools import cached_property

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from ntk_dist.fitted_start import FittedStart
from ntk_dist.kernel_matrix import FloatArray, as_lapack, check_finite
from ntk_dist.ridge import RidgePath, check_path, dual_path, lambda_major


class SchurDecomposition:
    """An unsymmetric K (M, M) in real Schur form; each further lambda costs O(M^2).

    K is overwritten when it is in Fortran order (another order is copied) and must not be used afterwards.
    |d| is not a function of such a kernel and comes out nan; leave-one-out residuals come out None,
    and generalised cross-validation with a fitted start nan.
    Raises KernelShapeError, NonFiniteError.
    """

    def __init__(self, K: FloatArray) -> None:
        A = as_lapack(K)
        check_finite(A, lower_only=False)
        self.size = len(A)
        self.trace = float(np.trace(A))
        self._T, self._Z = scipy.linalg.schur(A, output="real", overwrite_a=True, check_finite=False)

    @cached_property
    def eigenvalues(self) -> FloatArray:
        """Singular values of K, ascending, (M,): the ones its condition number is made of. Costs O(M^3)."""
        return scipy.linalg.svdvals(self._T, check_finite=False)[::-1].copy()

    @cached_property
    def complex_eigenvalues(self) -> np.ndarray[tuple[int], np.dtype[np.complex128]]:
        """Eigenvalues of K, (M,), complex, in no particular order."""
        values = np.diagonal(self._T).astype(np.complex128)
        below, above = np.diagonal(self._T, -1), np.diagonal(self._T, 1)
        # LAPACK leaves each pair a ± ib as the block [[a, x], [y, a]] with xy = -b^2.
        b = np.sqrt(np.abs(below)) * np.sqrt(np.abs(above))
        values[:-1] += 1j * np.where(below != 0, b, 0.0)
        values[1:] -= 1j * np.where(below != 0, b, 0.0)
        return values

    def ridge_path(
        self,
        residual: FloatArray,
        lambdas: FloatArray,
        *,
        leave_one_out: bool = False,
        rows_per_example: int = 1,
        start: FittedStart | None = None,
    ) -> RidgePath:
        """See `Decomposition.ridge_path`; degrees of freedom are Re sum_i t_i / (t_i + lambda)."""
        residual, lambdas = check_path(residual, lambdas, self.size)
        rotated = self._Z.T @ residual
        k = residual.shape[1]
        solved = np.empty((self.size, len(lambdas) * k), order="F")
        for i, shift in enumerate(lambdas):
            solved[:, i * k : (i + 1) * k] = self._solve_shifted(rotated, float(shift))
        alphas = lambda_major((solved.T @ self._Z.T).T, len(lambdas))
        t = self.complex_eigenvalues
        with np.errstate(divide="ignore", invalid="ignore"):
            dof = (t / (t + lambdas[:, None])).sum(axis=1).real
        unknown = np.full(len(lambdas), np.nan)
        return dual_path(alphas, unknown, dof, lambdas, start_dof=None if start is None else unknown)

    def quadratic_form(self, targets: FloatArray) -> float:
        """Return tr Y^T K Y for targets Y (M, k)."""
        rotated = self._Z.T @ targets
        return float(np.vdot(rotated, self._T @ rotated))

    def _solve_shifted(self, rotated: FloatArray, shift: float) -> FloatArray:
        # T x + x (lambda I) = c, the smallest of Sylvester equations.
        x, scale, info = lapack.dtrsyl(self._T, shift * np.eye(rotated.shape[1]), rotated)
        return np.full_like(rotated, np.nan) if info else x / scale
