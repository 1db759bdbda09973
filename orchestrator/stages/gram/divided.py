"""Products of rows that the processes of a group hold apart: each multiplies its own with those of all, in turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed import broadcast, reduce

if TYPE_CHECKING:
    from finetune.parallel.process_group import ProcessGroup
    from ntk_dist.arrays import FloatArray
    from ntk_dist.kernel.rows import AnyRows

    Pairs = Sequence[tuple[AnyRows, AnyRows]]

BYTES_AT_ONCE = 1 << 28
"""Most bytes of one message between processes."""


@dataclass(frozen=True)
class DividedProducts:
    """Tiles whose rows and columns are divided among the processes of a group; all of them make the same calls.

    The processes pass on their rows, one after the other, so that each holds those of one other process at a time. What
    they compute is put together in the first one.

    Attributes:
        process_group: the processes.
        left: by process, the positions of the examples of its rows of a tile.
        right: by process, those of its columns.
        kernel_rows: rows of the kernel of an example.
        jacobian_rows: rows of the Jacobian of an example.
        mirrored: whether rows and columns are the same, of a symmetric kernel.
    """

    process_group: "ProcessGroup"
    left: Sequence[NDArray[np.int64]]
    right: Sequence[NDArray[np.int64]]
    kernel_rows: int
    jacobian_rows: int
    mirrored: bool

    def tile(self, pairs: "Pairs", multiply: "Callable[[Pairs], FloatArray]") -> "FloatArray":
        """Return the tile of a block; only the first process has all of it.

        Args:
            pairs: this process's rows on both sides, for each group of the block.
            multiply: returns the tile of given rows on both sides.
        """
        rank = self.process_group.rank
        tile = np.zeros((self._length(self.left), self._length(self.right)))
        rows = self._places(self.left[rank])
        for source in range(self.process_group.size):
            n_rows = len(self.right[source]) * self.jacobian_rows
            passed = [self._passed(right, source, n_rows) for _, right in pairs]
            columns = self._places(self.right[source])
            if not (len(rows) and len(columns) and self._computes(source)):
                continue
            part = multiply([(left, right) for (left, _), right in zip(pairs, passed, strict=True)])
            tile[np.ix_(rows, columns)] = part
            if self.mirrored and source != rank:
                tile[np.ix_(columns, rows)] = part.T
        return self._together(tile)

    def diagonals(self, blocks: int, make: "Callable[[int], FloatArray]") -> "FloatArray":
        """Return each example's own part of each of B blocks, (B, n, r, r); only the first process has all of them.

        Args:
            blocks: B.
            make: returns those of so many examples: this process's.
        """
        own = self.left[self.process_group.rank]
        whole = np.zeros((blocks, sum(map(len, self.left)), self.kernel_rows, self.kernel_rows))
        if len(own):
            whole[:, own] = make(len(own))
        return self._together(whole)

    def _computes(self, source: int) -> bool:
        """Tell whether this process computes the products with a process's rows: of two mirrored ones, one does."""
        size, rank = self.process_group.size, self.process_group.rank
        ahead = 2 * ((rank - source) % size)
        return not self.mirrored or ahead < size or (ahead == size and rank < source)

    def _passed(self, own: "AnyRows", source: int, n_rows: int) -> "AnyRows":
        """Return the rows (n_rows, p_g) of one of the processes, which gives them to all."""
        is_own = source == self.process_group.rank
        rows = torch.from_numpy(own) if isinstance(own, np.ndarray) else own
        assert isinstance(rows, Tensor)
        if not is_own:
            rows = rows.new_empty((n_rows, rows.shape[1]))
        if rows.numel():
            for part in torch.split(rows, max(1, BYTES_AT_ONCE // (rows.shape[1] * rows.itemsize))):
                broadcast(part, source)
        if is_own:
            return own
        return rows.numpy() if isinstance(own, np.ndarray) else rows

    def _places(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the kernel of some examples."""
        return (positions[:, None] * self.kernel_rows + np.arange(self.kernel_rows)).ravel()

    def _length(self, side: Sequence[NDArray[np.int64]]) -> int:
        return self.kernel_rows * sum(map(len, side))

    def _together(self, own: "FloatArray") -> "FloatArray":
        # at most one term of each sum is not zero, so that their order does not matter
        reduce(torch.from_numpy(own), 0)
        return own
