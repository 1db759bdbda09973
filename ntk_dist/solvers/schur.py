"""K = Z T Z^T with T quasi-triangular: kernels that are not symmetric."""

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import scipy.linalg

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.kernel_matrix import as_lapack, check_finite
from ntk_dist.solvers.fitted_start import FittedStart
from ntk_dist.solvers.kept_path import KeptPath, keep_path
from ntk_dist.solvers.ridge import RidgePath, check_path, dual_path, lambda_major
from ntk_dist.solvers.shifted import QuasiTriangularMatrix


class SchurDecomposition:
    """An unsymmetric K (M, M) in real Schur form; each further lambda costs O(M^2).

    K is overwritten when it is in Fortran order (another order is copied) and must not be used afterwards.
    |d| is not a function of such a kernel and comes out nan; leave-one-out residuals come out None,
    and generalized cross-validation with a fitted start nan.
    Raises KernelShapeError, NonFiniteError.
    """

    def __init__(self, K: FloatArray) -> None:
        A = as_lapack(K)
        check_finite(A, lower_only=False)
        self.size = len(A)
        self.trace = float(np.trace(A))
        T, self._Z = scipy.linalg.schur(A, output="real", overwrite_a=True, check_finite=False)
        self.matrix = QuasiTriangularMatrix(T)

    @cached_property
    def eigenvalues(self) -> FloatArray:
        """Singular values of K, ascending, (M,): the ones its condition number is made of. Costs O(M^3)."""
        return scipy.linalg.svdvals(self.matrix.schur, check_finite=False)[::-1].copy()

    @property
    def complex_eigenvalues(self) -> np.ndarray[tuple[int], np.dtype[np.complex128]]:
        """Eigenvalues of K, (M,), complex, in no particular order."""
        return self.matrix.eigenvalues

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
            solved[:, i * k : (i + 1) * k] = self.matrix.solve(rotated, float(shift))
        alphas = lambda_major((solved.T @ self._Z.T).T, len(lambdas))
        t = self.complex_eigenvalues
        with np.errstate(divide="ignore", invalid="ignore"):
            dof = (t / (t + lambdas[:, None])).sum(axis=1).real
        unknown = np.full(len(lambdas), np.nan)
        return dual_path(alphas, unknown, dof, lambdas, start_dof=None if start is None else unknown)

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
        """See `Decomposition.keep`: T, as large as the kernel, is kept; leave-one-out residuals are not."""
        kept = keep_path(self.matrix, self._Z.T @ residual, self.eigenvalues, lambda columns: self._Z @ columns, rows)
        return kept if start is None else kept.with_start(np.full((self.size, 1), np.nan))

    def quadratic_form(self, targets: FloatArray) -> float:
        """Return tr Y^T K Y for targets Y (M, k)."""
        rotated = self._Z.T @ targets
        return float(np.vdot(rotated, self.matrix.schur @ rotated))
