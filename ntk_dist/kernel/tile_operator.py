"""A matrix that is stored as tiles and never assembled: its products, its trace, its norm."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse.linalg import LinearOperator

from ntk_dist.arrays import FloatArray
from ntk_dist.errors import NonFiniteError

Tile = tuple[slice, slice, Callable[[], FloatArray]]
"""Rows and columns of a tile in the matrix, and the function that reads the tile."""


class TileOperator(LinearOperator):
    """A matrix A (m, n) in tiles, each read anew for every product `matmat`, one at a time.

    Of a `symmetric` matrix the tiles on and below the diagonal stand for those above it too; tiles on the diagonal
    hold both triangles. Tiles are added in the order given, so that the same product has the same bits.

    shape: (m, n).
    passes: how often all tiles were read so far.
    """

    def __init__(self, tiles: Sequence[Tile], shape: tuple[int, int], *, symmetric: bool = False) -> None:
        super().__init__(np.float64, shape)  # type: ignore[call-arg]  # scipy has no types for it
        self._tiles = tiles
        self.symmetric = symmetric
        self.passes = 0

    def _matmat(self, X: FloatArray) -> FloatArray:
        """Return A X (m, k) for X (n, k)."""
        self.passes += 1
        # Tiles read and write rows of C-ordered arrays, which are contiguous for any k.
        X = np.ascontiguousarray(X)
        product = np.zeros((self.shape[0], X.shape[1]))
        for rows, columns, read in self._tiles:
            tile = read()
            product[rows] += tile @ X[columns]
            if self.symmetric and rows != columns:
                product[columns] += tile.T @ X[rows]
        return product

    def _adjoint(self) -> LinearOperator:
        return self if self.symmetric else super()._adjoint()

    def trace(self) -> float:
        """Return the sum of the diagonal of a symmetric matrix, from the tiles that hold it."""
        return sum(float(np.trace(read())) for rows, columns, read in self._tiles if rows == columns)

    def squared_norm(self) -> float:
        """Return the sum of the squares of all entries. Raises NonFiniteError if one is nan or inf, or overflows."""
        self.passes += 1
        total = 0.0
        for rows, columns, read in self._tiles:
            tile = np.asarray(read())
            twice = 2.0 if self.symmetric and rows != columns else 1.0
            total += twice * float(np.vdot(tile, tile))
            if not np.isfinite(total):
                raise NonFiniteError(
                    f"the kernel tile of rows {rows.start} to {rows.stop - 1} and {columns.start} to "
                    f"{columns.stop - 1} holds nan or inf, or overflows: look for them in the Jacobian rows of these "
                    "examples"
                )
        return total
