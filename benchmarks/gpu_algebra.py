"""Kernels and their decompositions on a device: Gram products against plain ones, and eigh."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.device_timing import Timing, timed, together
from ntk_dist.kernel.device_gram import device_gram_tile, tf32_products

PRECISIONS: dict[str, tuple[torch.dtype, bool]] = {
    "float32": (torch.float32, False),
    "float32, TF32": (torch.float32, True),
    "float64": (torch.float64, False),
}


DEVICE_BYTES = 8 << 30
"""Memory that a tile may take on the device."""


@dataclass(frozen=True)
class Product:
    """A Gram tile (rows x rows, over `columns`) in one precision beside the plain product of the same shape."""

    precision: str
    rows: int
    columns: int
    tile: Timing
    plain: Timing

    @property
    def flops(self) -> float:
        return 2.0 * self.rows**2 * self.columns


@dataclass(frozen=True)
class Decomposition:
    """Eigenvalues and eigenvectors of a symmetric float64 matrix; `failed` says why there is no time."""

    size: int
    timing: Timing | None = None
    failed: str | None = None


def matmul_flops(device: torch.device, *, size: int, repeats: int) -> float:
    """Floating-point operations a second of a large bfloat16 product: what utilization is a share of."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    # several a run, so that their launches do not count
    timing = timed(lambda: [left @ right for _ in range(4)], device, repeats=repeats)
    return 4 * 2 * size**3 / timing.median


def products(device: torch.device, *, rows: int, columns: int, repeats: int) -> Iterator[Product]:
    """Yield a tile of rows that come from the host, as a stage makes it, beside the product of rows on the device."""
    for name, (dtype, tf32) in PRECISIONS.items():
        left, right = (torch.randn(rows, columns, device=device, dtype=dtype) for _ in range(2))
        tile_of = partial(
            device_gram_tile, left.cpu().numpy(), right.cpu().numpy(), kind="sgd", outputs_per_example=1,
            accumulate="float64" if dtype == torch.float64 else "float32", tf32=tf32, max_bytes=DEVICE_BYTES,
            device=device,
        )  # fmt: skip

        def plain_product(left: Tensor = left, right: Tensor = right, tf32: bool = tf32) -> Tensor:
            with tf32_products(tf32):
                return left @ right.T

        tile, plain = together([tile_of, plain_product], device, repeats=repeats)
        yield Product(name, rows, columns, tile, plain)


def decomposition(device: torch.device, *, size: int, repeats: int) -> Decomposition:
    try:
        kernel = torch.randn(size, size, device=device, dtype=torch.float64)
        kernel = kernel + kernel.T
        return Decomposition(size, timed(lambda: torch.linalg.eigh(kernel), device, repeats=repeats))
    except RuntimeError as error:
        said = str(error).strip().splitlines() or [""]
        return Decomposition(size, failed=f"{type(error).__name__}: {said[0][:160]}")


def product_table(found: list[Product]) -> list[str]:
    lines = ["| precision | shape | tile, TFLOP/s | plain product, TFLOP/s | tile / plain | target |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for each in found:
        tile, plain = (each.flops / timing.median / 1e12 for timing in (each.tile, each.plain))
        shape = f"{each.rows} × {each.columns}"
        lines.append(f"| {each.precision} | {shape} | {tile:.3g} | {plain:.3g} | {tile / plain:.3f} | at least 0.8 |")
    return lines


def decomposition_table(found: list[Decomposition]) -> list[str]:
    lines = ["| M | eigh in float64, s |", "| --- | --- |"]
    for each in found:
        took = f"failed: {each.failed}" if each.timing is None else f"{each.timing.median:.3g}"
        lines.append(f"| {each.size} | {took} |")
    return lines
