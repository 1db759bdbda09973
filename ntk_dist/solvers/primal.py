"""G = J^T J instead of K = J J^T: same nonzero spectrum, smaller with fewer features than rows."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from scipy.linalg import blas

from ntk_dist.arrays import FloatArray
from ntk_dist.errors import NonFiniteError
from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers.band import BandDecomposition, reduce_symmetric
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.fitted_start import FittedStart
from ntk_dist.solvers.kept_path import KeptLeftOut, KeptPath, path_basis, weights_basis
from ntk_dist.solvers.kept_variance import keep_variance
from ntk_dist.solvers.leave_one_out import block_diagonals, solve_blocks
from ntk_dist.solvers.ridge import RidgePath, check_path, degrees_of_freedom
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition

Blocks = Callable[[], Iterator[FloatArray]]
Gram = EigenDecomposition | BandDecomposition | TridiagonalDecomposition


class PrimalDecomposition:
    """The p x p Gram matrix of the features, decomposed; rows are streamed and never held together.

    `train_blocks` gives a fresh iterator over the feature rows, as blocks (rows, p) that together are the
    (M, p) features in order; it is called once here, twice in `ridge_path`, three times with a fitted start, and once
    in `quadratic_form`.
    `decompose` decomposes the Gram matrix (p, p), whose lower triangle alone is filled and which it may overwrite;
    with eigenvectors leave-one-out residuals are available. For those, and with a fitted start, blocks hold whole
    examples.
    Raises KernelShapeError if the blocks do not add up to (M, p), NonFiniteError.
    """

    def __init__(
        self,
        train_blocks: Blocks,
        M: int,
        p: int,
        *,
        decompose: Callable[[FloatArray], Gram] = reduce_symmetric,
    ) -> None:
        self.size, self.n_features = M, p
        self._train_blocks = train_blocks
        G = np.zeros((p, p), order="F")
        for _, block in self._blocks():
            # The lower triangle of G, in place; a C-ordered block is its transpose in Fortran order.
            G = blas.dsyrk(1.0, block.T, beta=1.0, c=G, lower=1, overwrite_c=1)
        self.trace = float(np.trace(G))
        if not np.isfinite(self.trace):
            raise NonFiniteError("a feature row holds nan or inf: check the Jacobian rows of these groups")
        self._gram = decompose(G)

    @property
    def eigenvalues(self) -> FloatArray:
        """The min(M, p) largest eigenvalues of K = J J^T, ascending; its other M - p are exactly zero."""
        return self._gram.eigenvalues[-self.size :]

    def ridge_path(
        self,
        residual: FloatArray,
        lambdas: FloatArray,
        *,
        leave_one_out: bool = False,
        rows_per_example: int = 1,
        start: FittedStart | None = None,
    ) -> RidgePath:
        """See `Decomposition.ridge_path`; `solution` is d = (G + lambda I)^{-1} J^T r, (L, p, k).

        lambda (K + lambda I)^{-1} = I - J (G + lambda I)^{-1} J^T stands for the inverse of the dual form.
        """
        residual, lambdas = check_path(residual, lambdas, self.size)
        d, _ = self._gram.solve(self._transposed_times(residual), lambdas)
        eigen = self._gram if leave_one_out and isinstance(self._gram, EigenDecomposition) else None
        residuals = np.empty((len(lambdas), *residual.shape))
        left_out = None if eigen is None else np.empty_like(residuals)
        start_features = None if start is None else self._transposed_times_start(start)
        projected = None
        if eigen is not None and start_features is not None:
            projected = eigen.eigenvectors.T @ start_features
        for rows, block in self._blocks():
            residuals[:, rows] = residual[rows] - np.tensordot(d, block, axes=(1, 1)).transpose(0, 2, 1)
            if eigen is not None and left_out is not None:
                inverse = 1.0 / (np.maximum(eigen.eigenvalues, 0.0) + lambdas[:, None])
                vectors = block @ eigen.eigenvectors
                hat = block_diagonals(vectors, inverse, rows_per_example)
                right = residuals[:, rows]
                if start is not None and projected is not None:
                    examples = _examples(rows, rows_per_example)
                    seen = start.changes_through(vectors, projected, inverse, examples)
                    right = right + start.own_changes(examples) - seen
                left_out[:, rows] = solve_blocks(np.eye(rows_per_example) - hat, right)
        return RidgePath(
            lambdas=lambdas,
            train_residuals=residuals,
            solution=d,
            squared_distance=np.einsum("lpk,lpk->l", d, d),
            degrees_of_freedom=degrees_of_freedom(self.eigenvalues, lambdas),
            leave_one_out=left_out,
            start_degrees_of_freedom=self._start_dof(start, start_features, lambdas),
        )

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
        """See `Decomposition.keep`: of G = Q T Q^T, `train` is J Q V."""
        gram = self._gram
        rotated = gram.rotated(self._transposed_times(residual))
        V = path_basis(gram.matrix, rotated, gram.eigenvalues)
        weights = gram.rotated_back(V)
        train = np.concatenate([block @ weights for _, block in self._blocks()])
        eigen = gram if isinstance(gram, EigenDecomposition) else None
        predicted, squares = [], []
        for block in rows:
            predicted.append(block @ weights)
            if variance and eigen is not None:
                squares.append((block @ eigen.eigenvectors) ** 2)
        evaluation = np.concatenate(predicted)
        kept = KeptPath(gram.matrix, rotated, V, train, evaluation, self.eigenvalues, primal=True, size=self.size)
        if squares:
            kept = replace(kept, variance=keep_variance(gram.eigenvalues, np.concatenate(squares), None))
        features = None if start is None else self._transposed_times_start(start)
        if start is not None and features is not None:
            columns = np.hstack(list(features)) if start.linear else None
            total = start.rows_per_example * float(np.vdot(start.features, start.features))
            kept = kept.with_start(gram.start_of(columns), total=total)
        if leave_one_out and eigen is not None:
            kept = replace(kept, left_out=self._keep_left_out(eigen, rows_per_example, start, features))
        return kept

    def _keep_left_out(
        self, gram: EigenDecomposition, rows_per_example: int, start: FittedStart | None, features: FloatArray | None
    ) -> KeptLeftOut:
        basis = weights_basis(gram.eigenvalues, primal=True)
        # Modes whose s is rounding error have columns of J U that are no larger: nothing to divide.
        s = gram.eigenvalues
        resolved = s > np.finfo(np.float64).eps * s[-1]
        scaled = gram.eigenvectors * np.where(resolved, 1 / np.sqrt(np.where(resolved, s, 1.0)), 0.0)
        projected = None if features is None else scaled.T @ features
        hats, changes, own = [], [], []
        for rows, block in self._blocks():
            vectors = block @ scaled
            hats.append(block_diagonals(vectors, basis.T, rows_per_example))
            if start is not None and projected is not None:
                examples = _examples(rows, rows_per_example)
                changes.append(start.changes_through(vectors, projected, basis.T, examples))
                own.append(start.own_changes(examples))
        if start is None:
            return KeptLeftOut(basis, np.concatenate(hats, axis=1))
        return KeptLeftOut(basis, np.concatenate(hats, axis=1), np.concatenate(changes, axis=1), np.concatenate(own))

    def weights(self, basis: FloatArray) -> FloatArray:
        """Return Q V (p, m) of G = Q T Q^T for the basis V (p, m) of a `KeptPath`: the weights that it stands for."""
        return self._gram.rotated_back(basis)

    def normal_equations(self, residual: FloatArray) -> tuple[Gram, FloatArray]:
        """Return the decomposition of G and J^T r (p, k) for r (M, k), which a minimizer d and all ways to it solve."""
        return self._gram, self._transposed_times(residual)

    def quadratic_form(self, targets: FloatArray) -> float:
        """Return tr Y^T K Y = |J^T Y|^2 for targets Y (M, k)."""
        projected = self._transposed_times(targets)
        return float(np.vdot(projected, projected))

    def _start_dof(
        self, start: FittedStart | None, start_features: FloatArray | None, lambdas: FloatArray
    ) -> FloatArray:
        """Return lambda tr (K + lambda I)^{-1} H, (L,), with J^T X_c of the start (R, p, q)."""
        if start is None or start_features is None:
            return np.zeros(len(lambdas))
        if not start.linear:
            return np.full(len(lambdas), np.nan)
        forms = [self._gram.inverse_form(each, lambdas) for each in start_features]
        whole = start.rows_per_example * float(np.vdot(start.features, start.features))
        return np.asarray(whole - np.sum(forms, axis=0))

    def _transposed_times_start(self, start: FittedStart) -> FloatArray:
        """Return J^T X_c for each row c of an example, (R, p, q)."""
        R = start.rows_per_example
        result = np.zeros((R, self.n_features, start.features.shape[1]))
        for rows, block in self._blocks():
            result += start.times_transposed(block, _examples(rows, R))
        return result

    def _transposed_times(self, targets: FloatArray) -> FloatArray:
        result = np.zeros((self.n_features, targets.shape[1]))
        for rows, block in self._blocks():
            result += block.T @ targets[rows]
        return result

    def _blocks(self) -> Iterator[tuple[slice, FloatArray]]:
        start = 0
        for block in self._train_blocks():
            if block.ndim != 2 or block.shape[1] != self.n_features:
                raise KernelShapeError(f"feature blocks need {self.n_features} columns, got shape {block.shape}")
            yield slice(start, start + len(block)), np.asarray(block, dtype=np.float64)
            start += len(block)
        if start != self.size:
            raise KernelShapeError(f"the feature blocks hold {start} rows, {self.size} were announced")


def _examples(rows: slice, rows_per_example: int) -> slice:
    return slice(rows.start // rows_per_example, rows.stop // rows_per_example)
