"""What products in float64 cost on a GPU, by its compute capability.

The numbers are those of results a clock that a multiprocessor gives, from NVIDIA's CUDA C++ Programming Guide
(throughput of native arithmetic instructions), with the matrix units, of float64 for capabilities 8.0 and 9.0 and of
half precision, from the white papers of V100, T4, A100, A10, L40S, H100 and B200.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from orchestrator.sweep.gpu_kind import Gpu

if TYPE_CHECKING:
    import torch

_RESULTS_A_CLOCK = {
    "6.0": (64, 32, 128), "6.1": (128, 4, 2), "7.0": (64, 32, 512), "7.5": (64, 2, 512), "8.0": (64, 64, 1024),
    "8.6": (128, 2, 512), "8.9": (128, 2, 512), "9.0": (128, 128, 2048), "10.0": (128, 64, 4096),
    "12.0": (128, 2, 512),
}  # fmt: skip
"""By compute capability, of products in float32, in float64 and in half precision, added up in float32."""

_CLOCK = 1.5e9
"""Clocks a second of a GPU at work, about."""

_FAST_ENOUGH = 0.4
"""Share of the speed of float32 from which float64 is no more than a factor that blocks are worth."""

_MEASURED_SIZE = 2048


@dataclass(frozen=True)
class ProductSpeed:
    """Speed of matrix products on a GPU.

    Attributes:
        single: floating-point operations a second in float32, about.
        double: the same in float64.
        half: the same in half precision; where they were measured, no more than in float32, which nothing needs there.
        measured: whether they were measured, because none were published.
    """

    single: float
    double: float
    half: float
    measured: bool = False

    @property
    def is_slow(self) -> bool:
        """Tell whether products in float64 take several times as long as in float32."""
        return self.double < _FAST_ENOUGH * self.single


def product_speed(gpu: Gpu, device: "torch.device | None" = None) -> ProductSpeed | None:
    """Return the speed of products on a GPU; None where nothing was published and there is none to measure.

    Args:
        gpu: the GPU.
        device: where it is, if it is here.
    """
    if gpu.capability in _RESULTS_A_CLOCK:
        single, double, half = (
            2.0 * results * gpu.multiprocessors * _CLOCK for results in _RESULTS_A_CLOCK[gpu.capability]
        )
        return ProductSpeed(single, double, half)
    return None if device is None else _measured(device)


def product_note(gpu: Gpu, flops: float, device: "torch.device | None" = None) -> str | None:
    """Return what products of float64 cost on a GPU whose float64 units are slow, and the way out; None elsewhere.

    Args:
        gpu: the GPU.
        flops: floating-point operations of the products to be taken.
        device: where it is, if it is here.
    """
    speed = product_speed(gpu, device)
    if speed is None or not speed.is_slow or not flops:
        return None
    source = "measured" if speed.measured else "published"
    return (
        f"{gpu.name} takes products in float64 at 1/{speed.single / speed.double:.0f} of its speed in float32 "
        f"({source}): kernel blocks take about {_duration(flops / speed.double)} of GPU time, and would take "
        f"{_duration(flops / speed.single)} with compute.gram_dtype: float32, which takes products in float32 and adds "
        "them in float64; noise_floor is then that of float32"
    )


def _duration(seconds: float) -> str:
    return "less than a second" if seconds < 1 else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"


@lru_cache(maxsize=1)
def _measured(device: "torch.device") -> ProductSpeed:
    """Measure a product in float32 and in float64."""
    import torch

    from ntk_dist.timing import fastest

    def speed(dtype: torch.dtype) -> float:
        matrix = torch.ones(_MEASURED_SIZE, _MEASURED_SIZE, dtype=dtype, device=device)
        # reading one number waits for the product
        return 2.0 * _MEASURED_SIZE**3 / fastest(lambda: float((matrix @ matrix)[0, 0]))

    single = speed(torch.float32)
    return ProductSpeed(single, speed(torch.float64), single, measured=True)
