"""K = U S U^T on a device of torch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ntk_dist.arrays import FloatArray
from ntk_dist.device.faults import device_answers, is_broken_device
from ntk_dist.device.share import bytes_left
from ntk_dist.solvers.eigen import SYEVD_LIMIT
from ntk_dist.solvers.symmetric import DeviceFailure

TorchEigh = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

MATRICES = 4
"""Matrices as large as the kernel that a device must have room for: it, its eigenvectors, and twice as a workspace."""


def free_bytes(device: torch.device) -> int | None:
    """Return the memory of a GPU that this process may still take; None for a processor."""
    if device.type == "cpu":
        return None
    torch.get_device_module(device).empty_cache()
    return bytes_left(device)


@dataclass(frozen=True)
class DeviceEigh:
    """Eigenvalues and eigenvectors in float64 by torch, for `EigenDecomposition`.

    device: where they are computed.
    eigh: returns ascending eigenvalues and eigenvectors of a matrix on the device, whose lower triangle it reads.
    free: returns how many bytes the device has left, None where that does not matter.
    """

    device: torch.device
    eigh: TorchEigh = torch.linalg.eigh
    free: Callable[[torch.device], int | None] = free_bytes

    def __call__(self, A: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return eigenvalues (M,) and eigenvectors of A (M, M) in Fortran order, which the latter overwrite.

        Raises DeviceFailure, leaving A as it was, if the device has no room, raises, or returns nan or inf. If the
        device is broken, or no longer answers, its own error is raised.
        """
        self._check_room(len(A))
        host = torch.from_numpy(A.T)
        try:
            values, vectors = self.eigh(host.to(self.device, copy=True).mT)
            if not (_all_finite(values) and _all_finite(vectors)):
                raise DeviceFailure(f"eigh on {self.device} returned nan or inf")
            found: FloatArray = values.cpu().numpy()
            host.copy_(vectors.mT)
        except RuntimeError as error:  # also LinAlgError, OutOfMemoryError; what cuSOLVER refuses has no class
            if is_broken_device(str(error)) or not device_answers():
                raise  # the stage belongs elsewhere, and what this process computes next too
            raise DeviceFailure(f"eigh on {self.device} failed: {_first_line(error)}") from None
        return found, A

    def _check_room(self, size: int) -> None:
        if self.device.type == "cpu" and size > SYEVD_LIMIT:
            raise DeviceFailure(f"torch's eigh on a processor overflows above {SYEVD_LIMIT} rows, and there are {size}")
        needed, there = MATRICES * 8 * size * size, self.free(self.device)
        if there is not None and needed > there:
            raise DeviceFailure(
                f"eigh of {size} rows takes {needed / 1e9:.3g} GB, and {self.device} has {there / 1e9:.3g} GB free"
            )


def _all_finite(numbers: torch.Tensor) -> bool:
    # `torch.isfinite` would make a copy as large as a matrix.
    return all(bool(torch.isfinite(end)) for end in torch.aminmax(numbers))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
