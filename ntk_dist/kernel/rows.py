"""Jacobian rows (m, p) wherever they lie: in an array, or in a file of which only what is asked for is read."""

from typing import TYPE_CHECKING, Any, Protocol, Union

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor  # products on the host do without torch


class StoredRows(Protocol):
    """Rows (m, p) in a file."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice, /) -> "StoredRows":
        """Return a range of the rows, yet to be read."""

    def read(self, out: npt.NDArray[Any], columns: slice = ...) -> None:
        """Read columns of all rows into `out` (m, columns), converted to its dtype."""


Rows = npt.NDArray[np.floating] | StoredRows

AnyRows = Union[Rows, "Tensor"]
"""Rows on the host, or on the device that multiplies them."""


def read_columns(rows: Rows, columns: slice, out: npt.NDArray[Any]) -> None:
    """Copy columns of all rows into `out` (m, columns), converted to its dtype."""
    if isinstance(rows, np.ndarray):
        out[...] = rows[:, columns]
    else:
        rows.read(out, columns)
