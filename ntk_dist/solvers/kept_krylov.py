"""The ridge path of any lambda from data kept of Krylov spaces: without the spaces, and without the kernel.

It is what `ntk_dist.solvers.kept_path` keeps of a decomposition, with the Lanczos vectors V_c of each target c, their
tridiagonal V_c^T K V_c and |r_c| e_1 in the places of Q, T and Q^T r.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.ridge import RidgePath, check_path
from ntk_dist.solvers.shifted import TridiagonalMatrix


@dataclass(frozen=True, eq=False)
class KeptKrylovPath:
    """Kept data of the Krylov spaces of a kernel of M rows for k targets: q steps, at most m basis vectors each.

    Targets with fewer of them are filled up with zeros.

    diagonal, off_diagonal: (k, q) and (k, q - 1), of T_c.
    norms: |r_c|, (k,).
    basis: (k, q, m), orthonormal, of the solutions of each target for all lambdas.
    train: V_c basis_c, (M, k, m), which gives the dual coefficients.
    evaluation: K(eval, train) V_c basis_c, (M_eval, k, m).
    check: for each target the triangle of a QR factorization of [r_c, train_c, K train_c], (k, n, 1 + 2 m).
    """

    diagonal: FloatArray
    off_diagonal: FloatArray
    norms: FloatArray
    basis: FloatArray
    train: FloatArray
    evaluation: FloatArray
    check: FloatArray

    @property
    def size(self) -> int:
        """M."""
        return len(self.train)

    def ridge_path(self, residual: FloatArray, lambdas: FloatArray) -> RidgePath:
        """Return the path of the residual r (M, k) that the spaces were made for, for lambdas (L,), absolute.

        Its `solution` are coefficients (L, m, k), which `eval_fit` takes. Degrees of freedom are nan and leave-one-out
        residuals None, for they are no products with a kernel. Raises LambdaError, KernelShapeError.
        """
        _, lambdas = check_path(residual, lambdas, self.size)
        k, q, m = self.basis.shape
        coefficients, squares = np.empty((len(lambdas), m, k)), np.zeros(len(lambdas))
        for c in range(k):
            matrix, start = TridiagonalMatrix(self.diagonal[c], self.off_diagonal[c]), np.zeros((q, 1))
            start[:1] = self.norms[c]
            solved = np.hstack([matrix.solve(start, float(shift)) for shift in lambdas])
            coefficients[:, :, c] = solved.T @ self.basis[c]
            squares += matrix.quadratic_forms(solved)
        return RidgePath(
            lambdas=lambdas,
            train_residuals=lambdas[:, None, None] * _combined(self.train, coefficients),
            solution=coefficients,
            squared_distance=squares,
            degrees_of_freedom=np.full(len(lambdas), np.nan),
            leave_one_out=None,
            start_degrees_of_freedom=np.zeros(len(lambdas)),
        )

    def eval_fit(self, path: RidgePath) -> FloatArray:
        """Return the change of the evaluation outputs along a path, (L, M_eval, k)."""
        return _combined(self.evaluation, path.solution)

    def solve_residuals(self, path: RidgePath) -> FloatArray:
        """Return |r - (K + lambda I) alpha| / |lambda alpha| over all targets for each lambda of a path, (L,).

        It rests on products with K, not on T. For a positive semidefinite K no relative error of the training
        residuals lambda alpha exceeds it.
        """
        squares = np.zeros(len(path.lambdas))
        for c, triangle in enumerate(self.check):
            coefficients = path.solution[:, :, c]
            ones = np.ones((len(coefficients), 1))
            combination = np.hstack([ones, -path.lambdas[:, None] * coefficients, -coefficients])
            squares += ((combination @ triangle.T) ** 2).sum(axis=1)
        sizes = np.linalg.norm(path.train_residuals, axis=(1, 2))
        relative: FloatArray = np.divide(np.sqrt(squares), sizes, out=np.zeros(len(sizes)), where=sizes != 0)
        return relative

    def arrays(self) -> dict[str, FloatArray]:
        """Return its arrays by name: what `from_arrays` takes."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, FloatArray]) -> "KeptKrylovPath":
        """Return the path whose `arrays` these are."""
        return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})


def _combined(vectors: FloatArray, coefficients: FloatArray) -> FloatArray:
    """Return the combinations (L, n, k) of vectors (n, k, m) for each target by coefficients (L, m, k)."""
    combined = np.empty((len(coefficients), *vectors.shape[:2]))
    for c in range(vectors.shape[1]):
        combined[:, :, c] = coefficients[:, :, c] @ vectors[:, c].T
    return combined
