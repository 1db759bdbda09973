"""Kernel ridge regression for every lambda from one decomposition."""

from dataclasses import dataclass

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.errors import NtkError
from ntk_dist.kernel.kernel_matrix import KernelShapeError


class LambdaError(NtkError):
    """A regularization strength is not a positive finite number."""


@dataclass(frozen=True, eq=False)
class RidgePath:
    """Minimizers of (1/2)|J d - r|^2 + (lambda/2)|d|^2 along a path of lambdas.

    M rows, k targets, L lambdas. Residuals, solution and distance are nan for a lambda at which K + lambda I is
    singular to working precision.

    lambdas: (L,), absolute.
    train_residuals: (L, M, k), lambda (K + lambda I)^{-1} r = r - J d.
    solution: (L, q, k): the dual coefficients (K + lambda I)^{-1} r with q = M, or from a primal
        decomposition the weights d themselves with q = p.
    squared_distance: (L,), |d|^2 summed over the k targets; nan for an unsymmetric kernel.
    degrees_of_freedom: (L,), tr K (K + lambda I)^{-1}.
    leave_one_out: (L, M, k), residuals of each example under the fit to all the others, or None.
    start_degrees_of_freedom: (L,), lambda tr (K + lambda I)^{-1} H, what an f_0 = H y that was fitted to the same
        labels adds to the degrees of freedom; 0 where f_0 has not seen them, nan where that is not known.
    """

    lambdas: FloatArray
    train_residuals: FloatArray
    solution: FloatArray
    squared_distance: FloatArray
    degrees_of_freedom: FloatArray
    leave_one_out: FloatArray | None
    start_degrees_of_freedom: FloatArray

    def eval_fit(self, rows: FloatArray) -> FloatArray:
        """Return the change of the outputs, J_eval d, (L, m, k) for `rows` (m, q).

        `rows` are the rows of the kernel K(eval, train) (q = M), or, for a path from a primal decomposition,
        the feature rows of the evaluation examples (q = p). Blocks of rows can be given one at a time.
        """
        if rows.ndim != 2 or rows.shape[1] != self.solution.shape[1]:
            raise KernelShapeError(
                f"this path predicts from rows of length {self.solution.shape[1]}, got shape {rows.shape}: "
                "give K(eval, train) for a dual path, feature rows for a primal one"
            )
        return np.tensordot(self.solution, rows, axes=(1, 1)).transpose(0, 2, 1)

    @property
    def gcv(self) -> FloatArray:
        """Generalized cross-validation (1/M)|residual|^2 / (1 - dof/M)^2, (L,), summed over the k targets.

        Golub, Heath and Wahba, Technometrics 21 (1979), equation 1.4. dof is the trace of the matrix S that takes
        labels to predictions: with B = (K + lambda I)^{-1} and f_0 = H y it is H + K B (I - H), so that
        I - S = lambda B (I - H).
        """
        M = self.train_residuals.shape[1]
        squares = np.einsum("lmk,lmk->l", self.train_residuals, self.train_residuals)
        with np.errstate(divide="ignore", invalid="ignore"):
            dof = self.degrees_of_freedom + self.start_degrees_of_freedom
            result: FloatArray = squares / M / (1 - dof / M) ** 2
        return result


def check_path(residual: FloatArray, lambdas: FloatArray, size: int) -> tuple[FloatArray, FloatArray]:
    """Return residual (size, k) and lambdas (L,) as float64 arrays.

    Raises LambdaError for a lambda that is not positive and finite or for none at all, KernelShapeError for a
    residual of another length.
    """
    residual, lambdas = np.asarray(residual, dtype=np.float64), np.asarray(lambdas, dtype=np.float64)
    if residual.ndim != 2 or residual.shape[0] != size:
        raise KernelShapeError(f"residuals must have shape ({size}, k), got {residual.shape}")
    if lambdas.ndim != 1 or not lambdas.size:
        raise LambdaError(f"lambdas must be a non-empty vector, got shape {lambdas.shape}")
    for value in lambdas:
        if not (np.isfinite(value) and value > 0):
            raise LambdaError(f"lambda must be positive and finite, got {value}: remove it from the grid")
    return residual, lambdas


def degrees_of_freedom(eigenvalues: FloatArray, lambdas: FloatArray) -> FloatArray:
    """Return sum_i s_i / (s_i + lambda), (L,), for eigenvalues (r,) of a positive semidefinite kernel.

    Rounding leaves some eigenvalues of a singular kernel slightly negative; they count as the zeros they are.
    """
    s = np.maximum(eigenvalues, 0.0)
    result: FloatArray = (s / (s + lambdas[:, None])).sum(axis=1)
    return result


def lambda_major(columns: FloatArray, n_lambdas: int) -> FloatArray:
    """Return (L, q, k) for columns (q, L*k), lambda slowest; a view when they are in Fortran order."""
    q, n_columns = columns.shape
    return columns.T.reshape(n_lambdas, n_columns // n_lambdas, q).transpose(0, 2, 1)


def dual_path(
    alphas: FloatArray,
    squared_distance: FloatArray,
    dof: FloatArray,
    lambdas: FloatArray,
    *,
    leave_one_out: FloatArray | None = None,
    start_dof: FloatArray | None = None,
) -> RidgePath:
    """Return the path of the dual coefficients alphas (L, M, k), (K + lambda I)^{-1} r."""
    return RidgePath(
        lambdas=lambdas,
        train_residuals=lambdas[:, None, None] * alphas,
        solution=alphas,
        squared_distance=squared_distance,
        degrees_of_freedom=dof,
        leave_one_out=leave_one_out,
        start_degrees_of_freedom=np.zeros(len(lambdas)) if start_dof is None else start_dof,
    )
