"""Tiles of Gram matrices on a device of torch, in a bounded part of its memory."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ntk_dist.arrays import FloatArray
from ntk_dist.errors import NonFiniteError
from ntk_dist.kernel.features import KernelKind
from ntk_dist.kernel.gram import check_same_group, not_finite
from ntk_dist.kernel.rows import AnyRows, read_columns


def device_gram_tile(
    left: AnyRows,
    right: AnyRows,
    *,
    kind: KernelKind,
    outputs_per_example: int,
    accumulate: Literal["float64", "float32"],
    tf32: bool,
    max_bytes: int,
    device: torch.device,
) -> FloatArray:
    """Return the tile (a/R, b/R) that `gram_tile` does of rows (a, p) and (b, p), its products taken on `device`.

    Rows travel as they are stored and are cast, checked and multiplied there; those that are there already were checked
    when they were made. `tf32` says whether a GPU may round the factors of float32 products to TF32. Products of chunks
    of columns are added up in float64, on the device. The data on the device, but for rows that are there already, fit
    into `max_bytes`, which `DeviceChunks` divides among columns and, where the tile itself is too large, among its
    blocks; the context and the workspaces of CUDA's libraries come on top. When `left is right` and the kernel is
    symmetric, the tile is exactly symmetric.

    Raises NonFiniteError, KernelShapeError as `gram_tile` does, torch.OutOfMemoryError if the device is full.
    """
    return device_gram_sum(
        [(left, right)],
        kind=kind,
        outputs_per_example=outputs_per_example,
        accumulate=accumulate,
        tf32=tf32,
        max_bytes=max_bytes,
        device=device,
    )


def device_gram_sum(
    pairs: Sequence[tuple[AnyRows, AnyRows]],
    *,
    kind: KernelKind,
    outputs_per_example: int,
    accumulate: Literal["float64", "float32"],
    tf32: bool,
    max_bytes: int,
    device: torch.device,
) -> FloatArray:
    """Return the sum of the tiles of several groups, as `device_gram_tile` makes them; it alone comes to the host.

    Args:
        pairs: rows (a, p_g) and (b, p_g) of each group; everywhere the same object twice, or nowhere.
        kind: as in `device_gram_tile`, like all that follow.
        outputs_per_example: rows of an example that make one feature row.
        accumulate: precision of products.
        tf32: whether factors may be rounded.
        max_bytes: memory on the device.
        device: where products are taken.
    """
    for left, right in pairs:
        check_same_group(left, right)
    R, (first, second) = outputs_per_example, pairs[0]
    height, width = first.shape[0], second.shape[0]
    mirrored = first is second and kind != "asymmetric_sign"
    chunks = DeviceChunks.of(
        height, width, max(left.shape[1] for left, _ in pairs),
        outputs_per_example=R,
        stored_bytes=max(rows.dtype.itemsize for pair in pairs for rows in pair),
        product_bytes=8 if accumulate == "float64" else 4,
        square=mirrored,
        max_bytes=max_bytes,
    )  # fmt: skip
    product = _Product(kind, R, torch.float64 if accumulate == "float64" else torch.float32, device)
    tile = np.empty((height // R, width // R))
    with tf32_products(tf32):
        for i in range(0, height, chunks.left_rows):
            for j in range(0, i + 1 if mirrored else width, chunks.right_rows):
                rows, columns = slice(i, i + chunks.left_rows), slice(j, j + chunks.right_rows)
                same = first is second and rows == columns
                place = tile[i // R : rows.stop // R, j // R : columns.stop // R]
                here = [(left[rows], None if same else right[columns]) for left, right in pairs]
                product.write(here, chunks.columns, (i, j), place)
    if mirrored:
        _mirror(tile)
    return tile


def device_gram_diagonals(
    blocks: Sequence[Iterable[AnyRows]],
    *,
    examples: int,
    kind: KernelKind,
    outputs_per_example: int,
    kernel_rows: int,
    accumulate: Literal["float64", "float32"],
    tf32: bool,
    max_bytes: int,
    device: torch.device,
) -> FloatArray:
    """Return for each of B blocks the sum of what `gram_diagonal` makes of its groups, (B, n, r, r).

    They come to the host together, and nothing else does.

    Args:
        blocks: rows (n r R, p_g) of each group of each block, asked for one after the other; finite, as those of a tile
            that was made before are.
        examples: n.
        kind: as in `gram_diagonal`, like `outputs_per_example`, `kernel_rows` and `accumulate`.
        outputs_per_example: R.
        kernel_rows: r.
        accumulate: precision of products.
        tf32: whether factors may be rounded.
        max_bytes: memory on the device.
        device: where products are taken.
    """
    dtype = torch.float64 if accumulate == "float64" else torch.float32
    product = _Product(kind, outputs_per_example, dtype, device)
    shape = examples, kernel_rows, kernel_rows
    totals = torch.zeros((len(blocks), *shape), dtype=torch.float64, device=device)
    with tf32_products(tf32):
        for number, groups in enumerate(blocks):
            for rows in groups:
                per_column = rows.shape[0] * (rows.dtype.itemsize + dtype.itemsize)
                width = max(1, (max_bytes - 2 * totals.nbytes) // per_column)
                for start in range(0, rows.shape[1], width):
                    phi = product.features(rows, slice(start, min(start + width, rows.shape[1])))
                    phi = phi.reshape(examples, kernel_rows, -1)
                    totals[number] += phi @ phi.transpose(1, 2)
    found: FloatArray = totals.cpu().numpy()
    return found


@dataclass(frozen=True)
class DeviceChunks:
    """Division of a tile into parts that fit on a device.

    Attributes:
        left_rows, right_rows: Jacobian rows of the two sides that make one block of the tile, whole examples.
        columns: columns of both sides that are multiplied at once.
    """

    left_rows: int
    right_rows: int
    columns: int

    @classmethod
    def of(
        cls,
        left_rows: int,
        right_rows: int,
        columns: int,
        *,
        outputs_per_example: int,
        stored_bytes: int,
        product_bytes: int,
        square: bool,
        max_bytes: int,
    ) -> "DeviceChunks":
        """Divide until everything fits, by the shapes and `max_bytes` alone; one example and one column always go.

        The larger side is halved until a block takes at most half of `max_bytes`; the other half is for columns.

        `left_rows` (a), `right_rows` (b) and `columns` (p) are the shapes of the Jacobians, `stored_bytes` and
        `product_bytes` what a number takes as it is stored and in a product, `max_bytes` what everything together may
        take. With `square` blocks are square, so that those above the diagonal mirror others.
        """
        R = outputs_per_example
        a, b = max(1, left_rows // R), max(1, right_rows // R)
        # A block in float64, and a chunk's product that is added to it.
        while 16 * a * b > max_bytes // 2 and max(a, b) > 1:
            a, b = (-(-a // 2), b) if a >= b else (a, -(-b // 2))
            if square:
                a = b = min(a, b)
        rows = (a + b) * R
        width = (max_bytes - 16 * a * b - _ENDS_BYTES * rows) // ((stored_bytes + product_bytes) * rows)
        return cls(a * R, b * R, max(1, min(width, columns)))

    def device_bytes(self, *, outputs_per_example: int, stored_bytes: int, product_bytes: int) -> int:
        """Return the most that a block and a chunk of its two sides take on the device."""
        rows = self.left_rows + self.right_rows
        block = (self.left_rows // outputs_per_example) * (self.right_rows // outputs_per_example)
        return 16 * block + _ENDS_BYTES * rows + (stored_bytes + product_bytes) * rows * self.columns


@contextmanager
def tf32_products(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in float32 matrix products on GPUs, and restore afterwards what was set."""
    backend = torch.backends.cuda.matmul
    # From torch 2.9 on the older switch must not be read where the newer one was set.
    name, value = ("fp32_precision", "tf32" if allowed else "ieee")
    if not hasattr(backend, name):
        name, value = "allow_tf32", allowed  # type: ignore[assignment]
    before = getattr(backend, name)
    setattr(backend, name, value)
    try:
        yield
    finally:
        setattr(backend, name, before)


@dataclass(frozen=True)
class _Product:
    kind: KernelKind
    outputs_per_example: int
    dtype: torch.dtype
    device: torch.device

    def write(
        self, pairs: Sequence[tuple[AnyRows, AnyRows | None]], width: int, firsts: tuple[int, int], block: FloatArray
    ) -> None:
        """Write the block of the tile that rows of both sides make, summed over groups; None stands for the same rows.

        `firsts` are the places of the first rows of both sides in the whole tile.
        """
        total = torch.zeros(block.shape, dtype=torch.float64, device=self.device)
        ends = [(self._no_ends(left), self._no_ends(left if right is None else right)) for left, right in pairs]
        pace = _Pace(self.device)
        for (left, right), (left_ends, right_ends) in zip(pairs, ends, strict=True):
            for start in range(0, left.shape[1], width):
                chunk = slice(start, min(start + width, left.shape[1]))
                total += self._of_chunk(left, right, chunk, left_ends, right_ends)
                if not isinstance(left, torch.Tensor):
                    pace.chunk_begun()
        # Only here, because asking earlier would make the host wait for every chunk.
        for of_group in ends:
            for side, first in zip(of_group, firsts, strict=True):
                if side is not None:
                    _check_finite(side, first)
        block[...] = total.cpu().numpy()

    def features(self, rows: AnyRows, chunk: slice) -> torch.Tensor:
        """Return the feature rows of a chunk of columns on the left side of a tile."""
        return self._features(self._moved(rows, chunk), sign=self.kind == "sign")

    def _of_chunk(
        self,
        left: AnyRows,
        right: AnyRows | None,
        chunk: slice,
        left_ends: torch.Tensor | None,
        right_ends: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the product of a chunk of columns; of `left` with itself where `right` is None."""
        raw = self._moved(left, chunk)
        _widen(left_ends, raw)
        phi = self._features(raw, sign=self.kind == "sign")
        if right is not None:
            raw = self._moved(right, chunk)
            _widen(right_ends, raw)
        elif self.kind != "asymmetric_sign":
            return phi @ phi.T
        return phi @ self._features(raw, sign=self.kind != "sgd").T

    def _moved(self, rows: AnyRows, chunk: slice) -> torch.Tensor:
        """Copy columns to the device as they are stored, through pinned memory where that is a GPU."""
        if isinstance(rows, torch.Tensor):
            return rows[:, chunk]
        on_gpu = self.device.type != "cpu"
        # A new block of pinned memory each time: torch reuses a block only after its copy is done.
        shape = rows.shape[0], chunk.stop - chunk.start
        host = torch.empty(shape, dtype=_TORCH[rows.dtype.name], pin_memory=self.device.type == "cuda")
        read_columns(rows, chunk, host.numpy())
        return host.to(self.device, non_blocking=on_gpu)

    def _features(self, raw: torch.Tensor, *, sign: bool) -> torch.Tensor:
        """Return the result of `ntk_dist.kernel.features.features`, without changing `raw`."""
        R = self.outputs_per_example
        phi = raw.to(self.dtype, copy=sign or R > 1)
        if sign:
            phi.sign_()
        if R > 1:
            # By a tensor, for division by a number is a product with its rounded inverse on some devices.
            phi.div_(torch.full((), R, dtype=self.dtype, device=self.device).sqrt())
        return phi.reshape(raw.shape[0] // R, R * raw.shape[1])

    def _no_ends(self, rows: AnyRows) -> torch.Tensor | None:
        """Return what becomes the least and largest number of each row; None for rows that were checked before."""
        if isinstance(rows, torch.Tensor):
            return None
        return torch.zeros((2, rows.shape[0]), dtype=_TORCH[rows.dtype.name], device=self.device)


class _Pace:
    """Keeps the host one chunk ahead of a GPU: further ahead, pinned copies of chunks would pile up."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: torch.Event | None = None

    def chunk_begun(self) -> None:
        """Wait until the chunk before the one that was handed to the GPU just now is done."""
        if self._device.type == "cpu":
            return
        module = torch.get_device_module(self._device)
        event = module.Event()
        event.record(module.current_stream(self._device))
        if self._before is not None:
            self._before.synchronize()
        self._before = event


_ENDS_BYTES = 32
"""For each row, its least and largest number: of all chunks, and of one."""

_TORCH = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


def _widen(ends: torch.Tensor | None, raw: torch.Tensor) -> None:
    """Take each row's least and largest number into `ends` (2, rows): finite if and only if all of them are.

    Taken from the rows as stored: the sign would hide an infinity. `torch.isfinite` would make a copy of them.
    """
    if ends is None:
        return
    least, largest = torch.aminmax(raw, dim=1)
    torch.minimum(ends[0], least, out=ends[0])
    torch.maximum(ends[1], largest, out=ends[1])


def _check_finite(ends: torch.Tensor, first: int) -> None:
    finite = torch.isfinite(ends).all(dim=0).cpu().numpy()
    if not finite.all():
        raise NonFiniteError(not_finite(first + int(np.flatnonzero(~finite)[0])))


def _mirror(tile: FloatArray) -> None:
    """Put the lower triangle above the diagonal, row by row, so that no second tile is needed."""
    for row in range(len(tile)):
        tile[row, row + 1 :] = tile[row + 1 :, row]
