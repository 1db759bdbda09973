"""Initial outputs f_0 that were themselves fitted to the labels, and their values without one example."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.kernel_matrix import KernelShapeError

# Entries of the products held at a time: 32 MiB.
_CHUNK = 2**22


@dataclass(frozen=True, eq=False)
class FittedStart:
    """Changes of f_0 on n examples when it is fitted without example i: f_0 - F_i = Phi Delta_i.

    An example has R rows of the kernel and each row k targets. In row c of an example and target t,
    Delta_i[c, t] = sum_s directions[i, s] changes[i, s, c, t], a vector (q,).

    features: Phi, (n, q), the same in each of an example's rows.
    directions: (n, T, q).
    changes: (n, T, R, k).
    linear: whether f_0 is linear in the labels, f_0 = H y + constant with H = Phi Phi^T for each row and target.
    Raises KernelShapeError for shapes that do not belong together.
    """

    features: FloatArray
    directions: FloatArray
    changes: FloatArray
    linear: bool

    def __post_init__(self) -> None:
        n, q = self.features.shape
        if self.directions.shape != (n, self.changes.shape[1], q) or self.changes.shape[0] != n:
            raise KernelShapeError(
                f"features {self.features.shape}, directions {self.directions.shape} and changes "
                f"{self.changes.shape} need the shapes (n, q), (n, T, q) and (n, T, R, k)"
            )

    @property
    def rows_per_example(self) -> int:
        """Rows R of the kernel that an example has."""
        return int(self.changes.shape[2])

    def in_rows(self) -> Iterator[FloatArray]:
        """Yield X_c (nR, q) for each row c of an example: Phi in these rows, zeros in the others."""
        n, q = self.features.shape
        for c in range(self.rows_per_example):
            X = np.zeros((n * self.rows_per_example, q))
            X[c :: self.rows_per_example] = self.features
            yield X

    def times_transposed(self, vectors: FloatArray, examples: slice = slice(None)) -> FloatArray:
        """Return V^T X_c, (R, r, q), for rows V (mR, r) of the m `examples`."""
        R = self.rows_per_example
        features = self.features[examples]
        if vectors.shape[0] != len(features) * R:
            raise KernelShapeError(f"{len(features)} examples of {R} rows each, got {vectors.shape[0]} rows")
        return np.stack([vectors[c::R].T @ features for c in range(R)])

    def own_changes(self, examples: slice) -> FloatArray:
        """Return (Phi Delta_i)_i, f_0 of each of m examples minus f_0 fitted without that example, (mR, k)."""
        deltas = self._deltas(examples)
        own: FloatArray = np.einsum("iq,ictq->ict", self.features[examples], deltas)
        return np.reshape(own, (-1, own.shape[2]))

    def changes_through(
        self, vectors: FloatArray, projected: FloatArray, weights: FloatArray, examples: slice = slice(None)
    ) -> FloatArray:
        """Return (V diag(w_l) P Delta_i)_i for each of m examples, (L, mR, k).

        Args:
            vectors: V (mR, r), the rows of these examples.
            projected: P, for each row c of an example (R, r, q).
            weights: w, (L, r).
            examples: which of the n examples they are.
        """
        R, k = self.changes.shape[2:]
        r = vectors.shape[1]
        found = np.empty((len(weights), len(vectors), k))
        first = examples.start or 0
        step = max(1, _CHUNK // (R * k * r))
        for start in range(0, len(vectors) // R, step):
            part = vectors[start * R : (start + step) * R].reshape(-1, R, 1, r)
            deltas = self._deltas(slice(first + start, first + start + len(part)))
            moved = sum(deltas[:, c] @ projected[c].T for c in range(R))  # (m, k, r)
            sums = (part * np.asarray(moved)[:, None]).reshape(-1, r) @ weights.T
            found[:, start * R : start * R + part.shape[0] * R] = sums.T.reshape(len(weights), -1, k)
        return found

    def _deltas(self, examples: slice) -> FloatArray:
        """Return Delta_i of m examples, (m, R, k, q)."""
        deltas: FloatArray = np.einsum("isq,isct->ictq", self.directions[examples], self.changes[examples])
        return deltas
