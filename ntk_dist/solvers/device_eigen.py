"""K = U S U^T on a device of torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ntk_dist.arrays import FloatArray
from ntk_dist.device.faults import device_answers, is_broken_device
from ntk_dist.device.share import bytes_left
from ntk_dist.solvers.eigen import SYEVD_LIMIT
from ntk_dist.solvers.symmetric import DeviceFailure

TorchEigh = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

MATRICES = 4
"""Matrices as large as the kernel that a device must have room for: it, its eigenvectors, and twice as a workspace."""


COPIES = 4
"""Matrices for each of several kernels that are decomposed together: it, its eigenvectors, and these stacked twice."""

MOST_TOGETHER = 16
"""Most kernels that are decomposed together: a device is busy with fewer, and each waits in memory for its stage."""


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
    same_bits: whether the bits of a decomposition must not depend on the kernels that are decomposed with it.
    eigh: returns ascending eigenvalues and eigenvectors of a matrix on the device, whose lower triangle it reads.
    free: returns how many bytes the device has left, None where that does not matter.
    """

    device: torch.device
    eigh: TorchEigh = torch.linalg.eigh
    free: Callable[[torch.device], int | None] = free_bytes
    same_bits: bool = True

    def __call__(self, A: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return eigenvalues (M,) and eigenvectors of A (M, M) in Fortran order, which the latter overwrite.

        Raises DeviceFailure, leaving A as it was, if the device has no room, raises, or returns nan or inf. If the
        device is broken, or no longer answers, its own error is raised.
        """
        self._check_room(len(A), MATRICES)
        host = torch.from_numpy(A.T)
        try:
            values, vectors = self.eigh(host.to(self.device, copy=True).mT)
            if not _all_finite(values, vectors):
                raise DeviceFailure(f"eigh on {self.device} returned nan or inf")
            found: FloatArray = values.cpu().numpy()
            host.copy_(vectors.mT)
        except RuntimeError as error:
            raise self._failure(error) from None
        return found, A

    def together(self, kernels: Sequence[FloatArray]) -> list[tuple[FloatArray, FloatArray] | None]:
        """Return eigenvalues (M,) and eigenvectors (M, M), in Fortran order, of kernels of one size.

        The kernels stay as they are. They cross to the device in one copy and back in another. None
        stands for a kernel of which the device gave nan or inf. Raises as a single decomposition does.
        """
        self._check_room(len(kernels[0]), COPIES * len(kernels) + 2)
        stacked = torch.from_numpy(np.stack([K.T for K in kernels]))
        try:
            values, vectors = self._eigh_of_each(stacked.to(self.device).mT)
            on_host = torch.cat([vectors.mT, values[:, None, :]], dim=1).cpu().numpy()
        except RuntimeError as error:
            raise self._failure(error) from None
        return [(each[-1], each[:-1].T) if np.isfinite(each).all() else None for each in on_host]

    def most_together(self, size: int) -> int:
        """Return how many kernels of `size` rows the device has room for at once."""
        there = self.free(self.device)
        return MOST_TOGETHER if there is None else min(MOST_TOGETHER, (there // (8 * size * size) - 2) // COPIES)

    def _eigh_of_each(self, stacked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.same_bits:
            return self.eigh(stacked)
        # A library may take another algorithm for a batch, or for memory that is aligned otherwise.
        found = [self.eigh(matrix.mT.clone().mT) for matrix in stacked]
        return torch.stack([values for values, _ in found]), torch.stack([vectors.mT for _, vectors in found]).mT

    def _failure(self, error: RuntimeError) -> Exception:
        """Return what to raise for an error of torch: LinAlgError, OutOfMemoryError, or one of cuSOLVER."""
        if is_broken_device(str(error)) or not device_answers():
            return error  # the stage belongs elsewhere, and what this process computes next too
        return DeviceFailure(f"eigh on {self.device} failed: {_first_line(error)}")

    def _check_room(self, size: int, matrices: int) -> None:
        if self.device.type == "cpu" and size > SYEVD_LIMIT:
            raise DeviceFailure(f"torch's eigh on a processor overflows above {SYEVD_LIMIT} rows, and there are {size}")
        needed, there = matrices * 8 * size * size, self.free(self.device)
        if there is not None and needed > there:
            raise DeviceFailure(
                f"eigh of {size} rows takes {needed / 1e9:.3g} GB, and {self.device} has {there / 1e9:.3g} GB free"
            )


def _all_finite(*arrays: torch.Tensor) -> bool:
    # `torch.isfinite` would make a copy as large as a matrix.
    ends = [end for array in arrays for end in torch.aminmax(array)]
    return bool(torch.isfinite(torch.stack(ends)).all())


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
