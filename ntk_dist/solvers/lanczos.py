"""The Lanczos process for several start vectors side by side, each in a Krylov space of its own."""

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.tile_operator import TileOperator


class LanczosRuns:
    """V_c^T A V_c = T_c with T_c tridiagonal, for the Krylov space of each start vector c under a symmetric A (M, M).

    One product with A takes all runs a step further, so that tiles are read once for all of them. Every new vector
    is orthogonalized twice against all former ones of its run (Parlett, The Symmetric Eigenvalue Problem, section
    6.9: twice is enough), without which Lanczos vectors lose their orthogonality once a Ritz value has converged.

    steps: steps made.
    norms: |start_c|, (b,).
    lengths: size of each T_c, (b,): `steps`, or less where the Krylov space was exhausted before.
    next_norms: (b,), the norm that couples T_c to what comes after it; 0 where nothing does.
    """

    def __init__(self, operator: TileOperator, starts: FloatArray, max_steps: int) -> None:
        M, b = starts.shape
        self._operator = operator
        self.max_steps = min(max_steps, M)
        self.steps = 0
        self.norms: FloatArray = np.linalg.norm(starts, axis=0)
        self.lengths = np.zeros(b, dtype=np.int64)
        self.next_norms = self.norms.copy()
        # Not zeroed: pages that no step reaches are never taken from the system.
        self._basis = np.empty((b, self.max_steps, M))
        self._diagonals = np.zeros((b, self.max_steps))
        self._offs = np.zeros((b, self.max_steps))
        self._next = np.divide(starts.T, self.norms[:, None], out=np.zeros((b, M)), where=self.norms[:, None] > 0)
        self._scales = np.zeros(b)

    @property
    def running(self) -> bool:
        """True if another step would add a vector to some run."""
        return self.steps < self.max_steps and bool((self.next_norms > 0).any())

    def advance(self) -> None:
        """Take every run that is not exhausted a step further."""
        step, active = self.steps, np.flatnonzero(self.next_norms > 0)
        self._basis[active, step] = self._next[active]
        images = self._operator.matmat(self._next[active].T)
        for c, image in zip(active, images.T, strict=True):
            self._extend(int(c), step, image.copy())
        self.steps += 1

    def tridiagonal(self, c: int) -> tuple[FloatArray, FloatArray]:
        """Return the diagonal and the off-diagonal of T_c."""
        size = int(self.lengths[c])
        return self._diagonals[c, :size], self._offs[c, : max(size - 1, 0)]

    def lift(self, c: int, Y: FloatArray) -> FloatArray:
        """Return V_c Y (M, k) for Y (lengths[c], k)."""
        lifted: FloatArray = self._basis[c, : int(self.lengths[c])].T @ Y
        return lifted

    def _extend(self, c: int, step: int, image: FloatArray) -> None:
        basis = self._basis[c, : step + 1]
        self._diagonals[c, step] = basis[step] @ image
        for _ in range(2):
            image -= basis.T @ (basis @ image)
        norm = float(np.linalg.norm(image))
        self.lengths[c] = step + 1
        self._scales[c] = max(self._scales[c], abs(self._diagonals[c, step]) + norm)
        # The rounding error of a vector that lies in the space is no new direction.
        exhausted = norm <= 4 * np.finfo(np.float64).eps * np.sqrt(len(image)) * self._scales[c]
        if exhausted or step + 1 == len(image):
            norm = 0.0
        self._offs[c, step] = self.next_norms[c] = norm
        if norm:
            self._next[c] = image / norm
