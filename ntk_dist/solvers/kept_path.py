"""The ridge path of any lambda from data kept of a decomposition: without it, and without the kernel.

With K = Q T Q^T, T being tridiagonal or a band, z = (T + lambda I)^{-1} Q^T r costs O(M) for each lambda. Q itself is
as large as the kernel, but it is needed on few vectors alone: for all lambda > 0 together the lambda z lie, to
rounding, in a space of some dozens of dimensions, because lambda / (s + lambda) is a smooth function of log lambda,
whose poles keep a distance of pi from the real axis. It is spanned by the z of lambdas eight to a power of ten, along
the spectrum (interpolation from nodes h apart in log lambda errs by exp(-pi^2 / h): Stenger, Numerical Methods Based
on Sinc and Analytic Functions, 1993, section 3.1). With an orthonormal basis V of it, Q V and K(eval, train) Q V are
kept, z is found exactly, and Q z = (Q V) (V^T z).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.fitted_start import FittedStart
from ntk_dist.solvers.kept_arrays import InCOrder, orthonormal_basis
from ntk_dist.solvers.kept_variance import KeptVariance
from ntk_dist.solvers.lambda_nodes import node_lambdas
from ntk_dist.solvers.leave_one_out import solve_blocks
from ntk_dist.solvers.ridge import RidgePath, check_path, degrees_of_freedom, lambda_major
from ntk_dist.solvers.shifted import BandMatrix, QuasiTriangularMatrix, ShiftedMatrix, TridiagonalMatrix


@dataclass(frozen=True, eq=False)
class KeptLeftOut(InCOrder):
    """Kept data for leave-one-out residuals of a kernel that was decomposed with r eigenvectors.

    (K + lambda I)^{-1} = U diag(w) U^T is linear in its weights w, (r,), which lie in a space with a basis as well, and
    so is the hat matrix J (G + lambda I)^{-1} J^T = H diag(w) H^T of G = J^T J, with H = J U s^{-1/2}.

    weights_basis: (r, b), of all `mode_weights`.
    blocks: (b, n, C, C), for each w of the basis the diagonal blocks of U diag(w) U^T, or of H diag(w) H^T.
    start_changes: (b, M, k), changes of a fitted start through the same products; None without one.
    own_changes: (M, k), each example's start minus the start fitted without it; None except for J^T J.
    """

    weights_basis: FloatArray
    blocks: FloatArray
    start_changes: FloatArray | None = None
    own_changes: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class KeptPath(InCOrder):
    """Kept data of a decomposition of K = J J^T (M rows) or J^T J: q rows of either, k targets, m basis vectors.

    matrix: T, (q, q).
    rotated: Q^T r, (q, k), or Q^T J^T r.
    basis: V, (q, m).
    train: Q V (M, m), which gives the dual coefficients, or J Q V, which gives the change of the outputs.
    evaluation: K(eval, train) Q V, (M_eval, m), or J_eval Q V.
    eigenvalues: those of `Decomposition.eigenvalues`.
    primal: whether J^T J was decomposed.
    size: M.
    left_out: data for leave-one-out residuals, or None.
    start: (q, n), right sides whose tr start^T (T + lambda I)^{-1} start makes the degrees of freedom that a fitted
        start adds; nan where those are not known, None without a fitted start.
    start_total: number from which that trace is subtracted where J^T J was decomposed.
    variance: data for predictive variances, or None.
    """

    matrix: ShiftedMatrix
    rotated: FloatArray
    basis: FloatArray
    train: FloatArray
    evaluation: FloatArray
    eigenvalues: FloatArray
    primal: bool
    size: int
    left_out: KeptLeftOut | None = None
    start: FloatArray | None = None
    start_total: float = 0.0
    variance: KeptVariance | None = None

    def ridge_path(self, residual: FloatArray, lambdas: FloatArray) -> RidgePath:
        """Return the path of the residual r (M, k) that was given to the decomposition, for lambdas (L,), absolute.

        Its `solution` are coefficients (L, m, k), which `eval_fit` takes. Raises LambdaError, KernelShapeError.
        """
        residual, lambdas = check_path(residual, lambdas, self.size)
        L, k = len(lambdas), residual.shape[1]
        solved = np.empty((len(self.rotated), L * k), order="F")
        for i, shift in enumerate(lambdas):
            solved[:, i * k : (i + 1) * k] = self.matrix.solve(self.rotated, float(shift))
        squares = np.einsum("qn,qn->n", solved, solved) if self.primal else self.matrix.quadratic_forms(solved)
        coefficients = solved.T @ self.basis
        fitted = lambda_major((coefficients @ self.train.T).T, L)
        left = lambdas[:, None, None] * fitted if not self.primal else residual - fitted
        return RidgePath(
            lambdas=lambdas,
            train_residuals=left,
            solution=lambda_major(coefficients.T, L),
            squared_distance=squares.reshape(L, k).sum(axis=1),
            degrees_of_freedom=self._degrees_of_freedom(lambdas),
            leave_one_out=None if self.left_out is None else self._leave_one_out(self.left_out, lambdas, fitted, left),
            start_degrees_of_freedom=self._start_degrees_of_freedom(lambdas),
        )

    def eval_fit(self, path: RidgePath) -> FloatArray:
        """Return the change of the evaluation outputs along a path, (L, M_eval, k)."""
        return path.eval_fit(self.evaluation)

    def _degrees_of_freedom(self, lambdas: FloatArray) -> FloatArray:
        if not isinstance(self.matrix, QuasiTriangularMatrix):
            return degrees_of_freedom(self.eigenvalues, lambdas)
        t = self.matrix.eigenvalues
        with np.errstate(divide="ignore", invalid="ignore"):
            found: FloatArray = (t / (t + lambdas[:, None])).sum(axis=1).real
        return found

    def _start_degrees_of_freedom(self, lambdas: FloatArray) -> FloatArray:
        if self.start is None:
            return np.zeros(len(lambdas))
        if np.isnan(self.start).all():
            return np.full(len(lambdas), np.nan)
        forms = np.array([np.vdot(self.start, self.matrix.solve(self.start, float(shift))) for shift in lambdas])
        return self.start_total - forms if self.primal else lambdas * forms

    def _leave_one_out(
        self, kept: KeptLeftOut, lambdas: FloatArray, fitted: FloatArray, left: FloatArray
    ) -> FloatArray:
        """Return the residuals of each example under the fit to all the others, (L, M, k).

        Leaving out example i it is ([(K + lambda I)^{-1}]_ii)^{-1} alpha_i, where i stands for all of its rows
        (Rasmussen and Williams 2006, equation 5.12, for one row). With a fitted start alpha_i has the residual of the
        start without i, r + f_0 - F_i, in the place of r.
        """
        if not isinstance(self.matrix, TridiagonalMatrix):
            raise AssertionError("an unsymmetric kernel has no leave-one-out residuals")
        weights = mode_weights(self.matrix.diagonal, lambdas, primal=self.primal)
        coefficients = weights @ kept.weights_basis
        blocks = np.tensordot(coefficients, kept.blocks, axes=1)
        changes: FloatArray | float = 0.0
        if kept.start_changes is not None:
            changes = np.tensordot(coefficients, kept.start_changes, axes=1)
        if not self.primal:
            return solve_blocks(blocks, fitted + changes)
        own = 0.0 if kept.own_changes is None else kept.own_changes
        return solve_blocks(np.eye(blocks.shape[-1]) - blocks, left + own - changes)

    def arrays(self) -> dict[str, FloatArray]:
        """Return everything but `primal` and `size`, by name: what `from_arrays` takes."""
        own = {name: getattr(self, name) for name in _ARRAYS}
        left_out = {} if self.left_out is None else vars(self.left_out)
        start = {} if self.start is None else {"start": self.start, "start_total": np.array([self.start_total])}
        variance = {} if self.variance is None else {_VARIANCE + name: a for name, a in vars(self.variance).items()}
        found = self.matrix.arrays() | own | left_out | start | variance
        return {name: array for name, array in found.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, FloatArray], *, primal: bool, size: int) -> "KeptPath":
        """Return the path whose `arrays` these are."""
        matrix: ShiftedMatrix
        if "schur" in arrays:
            matrix = QuasiTriangularMatrix(arrays["schur"])
        elif "band" in arrays:
            matrix = BandMatrix(arrays["band"])
        else:
            matrix = TridiagonalMatrix(arrays["diagonal"], arrays["off_diagonal"])
        left_out = None
        if "weights_basis" in arrays:
            left_out = KeptLeftOut(**{each.name: arrays.get(each.name) for each in fields(KeptLeftOut)})  # type: ignore[arg-type]
        variance = None
        if f"{_VARIANCE}basis" in arrays:
            variance = KeptVariance(**{each.name: arrays[_VARIANCE + each.name] for each in fields(KeptVariance)})
        total = float(arrays["start_total"][0]) if "start_total" in arrays else 0.0
        own = {name: arrays[name] for name in _ARRAYS}
        return cls(
            matrix,
            primal=primal,
            size=size,
            left_out=left_out,
            start=arrays.get("start"),
            start_total=total,
            variance=variance,
            **own,
        )

    def with_start(self, start: FloatArray, *, total: float = 0.0) -> "KeptPath":
        """Return the same with the right sides of a fitted start."""
        return replace(self, start=start, start_total=total)


_VARIANCE = "variance_"
"""Before the names of the arrays of `KeptVariance`."""

_ARRAYS = ("rotated", "basis", "train", "evaluation", "eigenvalues")


def keep_path(
    matrix: ShiftedMatrix,
    rotated: FloatArray,
    eigenvalues: FloatArray,
    back: Callable[[FloatArray], FloatArray],
    rows: Iterable[FloatArray],
) -> KeptPath:
    """Return the kept data of K = Q T Q^T (M, M): `matrix` T, `rotated` Q^T r (M, k), `eigenvalues` (M,), ascending.

    `back` returns Q B for B (M, m), and `rows` are blocks of rows (m, M) of K(eval, train), together all of them.

    Only solutions of a symmetric kernel lie in few dimensions: an unsymmetric one may have eigenvalues left of 0, which
    lambda comes near to, and all of Q is kept.
    """
    whole = isinstance(matrix, QuasiTriangularMatrix)
    V = np.eye(len(rotated)) if whole else path_basis(matrix, rotated, eigenvalues)
    train = back(V)
    evaluation = np.concatenate([block @ train for block in rows])
    return KeptPath(matrix, rotated, V, train, evaluation, eigenvalues, primal=False, size=len(train))


def path_basis(matrix: ShiftedMatrix, rotated: FloatArray, eigenvalues: FloatArray) -> FloatArray:
    """Return an orthonormal basis V (q, m) of the lambda (T + lambda I)^{-1} g for all lambda > 0, to rounding.

    `rotated` is g (q, k), `eigenvalues` those of T, ascending, (q,).
    """
    nodes, k = node_lambdas(float(eigenvalues[0]), float(eigenvalues[-1])), rotated.shape[1]
    columns = np.empty((len(rotated), k * (len(nodes) + 1)), order="F")
    columns[:, :k] = rotated
    for i, node in enumerate(nodes, 1):
        columns[:, i * k : (i + 1) * k] = matrix.solve(rotated, float(node))
    return orthonormal_basis(columns)


def weights_basis(eigenvalues: FloatArray, *, primal: bool) -> FloatArray:
    """Return an orthonormal basis (r, b) of the `mode_weights` of eigenvalues s (r,) for all lambda > 0."""
    nodes = node_lambdas(float(eigenvalues[0]), float(eigenvalues[-1]))
    weights = mode_weights(eigenvalues, nodes, primal=primal)
    largest = np.maximum(eigenvalues, 0.0) if primal else np.ones(len(eigenvalues))
    return orthonormal_basis(np.vstack([largest, weights]).T)


def mode_weights(eigenvalues: FloatArray, lambdas: FloatArray, *, primal: bool) -> FloatArray:
    """Return 1 / (s + lambda), (L, r), nan where that divides by zero, for eigenvalues s (r,); `primal`: times s.

    Rounding leaves some eigenvalues of a singular J^T J slightly negative; `primal` takes them for the zeros they are.
    """
    s = np.maximum(eigenvalues, 0.0) if primal else eigenvalues
    shifted = s + lambdas[:, None]
    weights: FloatArray = (s if primal else 1.0) / np.where(shifted == 0, np.nan, shifted)
    return weights


def start_in_rows(start: FittedStart) -> FloatArray | None:
    """Return X_c of a fitted start for all rows c of an example side by side, (M, R q); None if f_0 is not linear."""
    return np.hstack(list(start.in_rows())) if start.linear else None
