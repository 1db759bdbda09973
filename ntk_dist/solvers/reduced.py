"""K = Q T Q^T with T of few diagonals: what every such reduction gives."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

import numpy as np
from scipy.linalg import lapack

from ntk_dist.arrays import FloatArray
from ntk_dist.errors import NonFiniteError
from ntk_dist.kernel.kernel_matrix import as_lapack
from ntk_dist.solvers.fitted_start import FittedStart
from ntk_dist.solvers.kept_path import KeptPath, keep_path, start_in_rows
from ntk_dist.solvers.ridge import RidgePath, check_path, degrees_of_freedom, dual_path, lambda_major
from ntk_dist.solvers.shifted import ShiftedMatrix


class ReducedMatrix(ShiftedMatrix, Protocol):
    """A symmetric T (M, M) of few diagonals."""

    def times(self, z: FloatArray) -> FloatArray:
        """Return T z for z (M, k)."""


Matrix = TypeVar("Matrix", bound=ReducedMatrix)


class ReducedDecomposition(ABC, Generic[Matrix]):
    """K (M, M) reduced to T by reflections from both sides.

    Only the lower triangle of K is read. K is overwritten when it is in Fortran order (another order is
    copied) and must not be used afterwards: it holds Q, as the reflectors that LAPACK leaves.
    Raises KernelShapeError, NonFiniteError.

    size: M.
    trace: of K.
    matrix: T.
    """

    def __init__(self, K: FloatArray) -> None:
        A = as_lapack(K)
        self.size = len(A)
        self.trace = float(np.trace(A))
        self.matrix, A, self._tau = self._reduce(A)
        if not all(np.isfinite(array).all() for array in self.matrix.arrays().values()):
            raise NonFiniteError(
                "the kernel holds nan or inf, or overflows: look for them in the Jacobian rows of its groups"
            )
        # With w = M - len(tau), Q = diag(I, Q') and the reflectors of Q' stand in A[w:, :-w] as qr would leave them.
        # The same memory, begun w entries later, is that matrix in Fortran order with a leading dimension of M, so it
        # need not be copied for LAPACK.
        n, count = self.size, len(self._tau)
        flat = A.reshape(-1, order="F")
        self._reflectors = flat[n - count :][: n * count].reshape((n, count), order="F")

    @abstractmethod
    def _reduce(self, A: FloatArray) -> tuple[Matrix, FloatArray, FloatArray]:
        """Return T, A overwritten by the reflectors, and their scales, one for each column that has one."""

    @property
    @abstractmethod
    def eigenvalues(self) -> FloatArray:
        """Eigenvalues of K, ascending, (M,)."""

    def ridge_path(
        self,
        residual: FloatArray,
        lambdas: FloatArray,
        *,
        leave_one_out: bool = False,
        rows_per_example: int = 1,
        start: FittedStart | None = None,
    ) -> RidgePath:
        """See `Decomposition.ridge_path`; without eigenvectors leave_one_out stays None."""
        residual, lambdas = check_path(residual, lambdas, self.size)
        alphas, squared_distance = self.solve(residual, lambdas)
        start_dof = None
        if start is not None:
            forms = [self.inverse_form(X, lambdas) for X in start.in_rows()] if start.linear else [np.array(np.nan)]
            start_dof = lambdas * np.sum(forms, axis=0)
        dof = degrees_of_freedom(self.eigenvalues, lambdas)
        return dual_path(alphas, squared_distance, dof, lambdas, start_dof=start_dof)

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
        """See `Decomposition.keep`; without eigenvectors neither leave-one-out residuals nor variances are kept."""
        kept = keep_path(self.matrix, self.rotated(residual), self.eigenvalues, self.rotated_back, rows)
        return kept if start is None else kept.with_start(self.start_of(start_in_rows(start)))

    def start_of(self, columns: FloatArray | None) -> FloatArray:
        """Return Q^T X for X (M, n), or nan (M, 1) if there is no X: see `KeptPath.start`."""
        return np.full((self.size, 1), np.nan) if columns is None else self.rotated(columns)

    def quadratic_form(self, targets: FloatArray) -> float:
        """Return tr Y^T K Y for targets Y (M, k)."""
        rotated = self.rotated(targets)
        return float(np.vdot(rotated, self.matrix.times(rotated)))

    def solve(self, right: FloatArray, lambdas: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `ShiftedSolver.solve`: a solve with T for each lambda, then one product with Q for all of them."""
        rotated = self.rotated(right)
        k = right.shape[1]
        solved = np.empty((self.size, len(lambdas) * k), order="F")
        quadratic = np.empty(len(lambdas))
        for i, shift in enumerate(lambdas):
            z = self.matrix.solve(rotated, float(shift))
            solved[:, i * k : (i + 1) * k] = z
            quadratic[i] = self.matrix.quadratic_forms(z).sum()
        return lambda_major(self.rotated_back(solved), len(lambdas)), quadratic

    def inverse_form(self, right: FloatArray, lambdas: FloatArray) -> FloatArray:
        """See `ShiftedSolver.inverse_form`: one product with Q, then a solve with T for each lambda."""
        rotated = self.rotated(right)
        return np.array([np.vdot(rotated, self.matrix.solve(rotated, float(shift))) for shift in lambdas])

    def rotated(self, columns: FloatArray) -> FloatArray:
        """Return Q^T B for B (M, N)."""
        return self._apply_q(columns, transpose=True)

    def rotated_back(self, columns: FloatArray) -> FloatArray:
        """Return Q B for B (M, N)."""
        return self._apply_q(columns, transpose=False)

    def _apply_q(self, matrix: FloatArray, *, transpose: bool) -> FloatArray:
        """Return Q B or Q^T B for B (M, N), in Fortran order: what LAPACK ormtr does."""
        result = np.array(matrix, dtype=np.float64, order="F")
        if not (len(self._tau) and result.size):
            return result
        first = self.size - len(self._tau)
        tail = np.asfortranarray(result[first:])
        trans = "T" if transpose else "N"
        _, work, _ = lapack.dormqr("L", trans, self._reflectors, self._tau, tail, lwork=-1, overwrite_c=1)
        tail, _, _ = lapack.dormqr("L", trans, self._reflectors, self._tau, tail, lwork=int(work[0]), overwrite_c=1)
        result[first:] = tail
        return result
