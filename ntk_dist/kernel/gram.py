"""Tiles of Gram matrices from Jacobian rows that may lie on disk."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from ntk_dist.arrays import FloatArray
from ntk_dist.errors import NonFiniteError
from ntk_dist.kernel.features import FloatDType, KernelKind, KindSide, made_features
from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.kernel.rows import AnyRows, Rows, read_columns


def gram_tile(
    left: Rows,
    right: Rows,
    *,
    kind: KernelKind = "sgd",
    outputs_per_example: int = 1,
    accumulate: Literal["float64", "float32"] = "float64",
    max_bytes: int = 1 << 30,
) -> FloatArray:
    """Return the tile Phi_left Phi_right^T (a/R, b/R) of the Jacobian rows left (a, p) and right (b, p).

    `kind` "sgd" multiplies the rows as they are, "sign" their signs, "asymmetric_sign" the left rows with the
    signs of the right ones. R is `outputs_per_example` (see `features`). Rows may lie in a file: p is
    walked in chunks of columns, products are taken in `accumulate` and chunks are added up in float64. The
    chunks depend on the shapes and on `max_bytes` alone, so the same call gives the same bits; temporaries
    and result together stay under `max_bytes` unless a single column does not fit. When `left is right` and
    the kernel is symmetric, the product costs half and is exactly symmetric.

    Raises NonFiniteError if a row holds nan or inf, KernelShapeError if the rows have different lengths.
    """
    check_same_group(left, right)
    a, b = left.shape[0] // outputs_per_example, right.shape[0] // outputs_per_example
    tile = np.zeros((a, b))
    dtype: FloatDType = np.float64 if accumulate == "float64" else np.float32
    width = column_chunk(left.shape[0], right.shape[0], result_size=a * b, max_bytes=max_bytes)
    for start in range(0, left.shape[1], width):
        chunk = slice(start, min(start + width, left.shape[1]))
        take = partial(_finite_features, chunk=chunk, outputs_per_example=outputs_per_example, dtype=dtype)
        tile += _product(left, right, kind, take)
    return tile


def gram_diagonal(
    rows: Rows,
    *,
    kind: KernelKind,
    outputs_per_example: int,
    kernel_rows: int,
    accumulate: Literal["float64", "float32"] = "float64",
    max_bytes: int = 1 << 30,
) -> FloatArray:
    """Return each example's block on the diagonal of a symmetric kernel, (n, r, r), of Jacobian rows (n r R, p).

    r is `kernel_rows`, the rows of the kernel that an example gives; everything else is as in `gram_tile`.

    Raises NonFiniteError if a row holds nan or inf.
    """
    n = rows.shape[0] // (outputs_per_example * kernel_rows)
    blocks = np.zeros((n, kernel_rows, kernel_rows))
    dtype: FloatDType = np.float64 if accumulate == "float64" else np.float32
    # numpy copies the transposed side
    width = column_chunk(rows.shape[0], rows.shape[0], result_size=blocks.size, max_bytes=max_bytes)
    side: KindSide = "sign" if kind == "sign" else "raw"
    for start in range(0, rows.shape[1], width):
        chunk = slice(start, min(start + width, rows.shape[1]))
        phi = _finite_features(rows, side, chunk=chunk, outputs_per_example=outputs_per_example, dtype=dtype)
        phi = phi.reshape(n, kernel_rows, -1)
        blocks += phi @ phi.transpose(0, 2, 1)
    return blocks


def column_chunk(left_rows: int, right_rows: int, *, result_size: int, max_bytes: int) -> int:
    """Return how many columns `gram_tile` takes at a time: at least one.

    Counts two float64 results (the sum and a chunk's product) and, for each entry of a chunk of both sides,
    its float64 copy and one byte of the check for finite numbers.
    """
    return max(1, (max_bytes - 16 * result_size) // (9 * (left_rows + right_rows)))


def check_same_group(left: AnyRows, right: AnyRows) -> None:
    """Raise KernelShapeError if the rows of the two sides of a tile have different lengths."""
    if left.shape[1] != right.shape[1]:
        raise KernelShapeError(
            f"rows of {left.shape[1]} and of {right.shape[1]} parameters have no product: "
            "both sides of a tile must come from the same group"
        )


def not_finite(row: int) -> str:
    """Return the message about a Jacobian row that holds nan or inf."""
    return (
        f"Jacobian row {row} of this tile holds nan or inf: check that example's text and the "
        "model's weights, or capture with the model in float64"
    )


def _product(
    left: Rows, right: Rows, kind: KernelKind, take: Callable[[Rows, KindSide], npt.NDArray[np.floating]]
) -> npt.NDArray[np.floating]:
    phi = take(left, "sign" if kind == "sign" else "raw")
    # numpy calls syrk when it sees a matrix times its own transpose
    psi = phi
    if left is not right or kind == "asymmetric_sign":
        psi = take(right, "raw" if kind == "sgd" else "sign")
    return np.asarray(phi @ psi.T)


def _finite_features(
    rows: Rows, side: KindSide, *, chunk: slice, outputs_per_example: int, dtype: FloatDType
) -> npt.NDArray[np.floating]:
    read: npt.NDArray[np.floating] = np.empty((rows.shape[0], chunk.stop - chunk.start), dtype)
    read_columns(rows, chunk, read)
    # Checked before the sign is taken, which would hide an infinity.
    finite = np.isfinite(read).all(axis=1)
    if not finite.all():
        raise NonFiniteError(not_finite(int(np.flatnonzero(~finite)[0])))
    return made_features(read, kind_side=side, outputs_per_example=outputs_per_example)
