"""The choice of a decomposition for a symmetric kernel, and the fallback where a device fails."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import blas

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.band import BandDecomposition, reduce_symmetric
from ntk_dist.solvers.eigen import EigenDecomposition, Eigh
from ntk_dist.solvers.faster_place import FasterPlace
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition

logger = logging.getLogger(__name__)


class DeviceFailure(Exception):  # noqa: N818 -- not the user's error: the caller goes on without the device
    """A device gave no decomposition; the message says why. The kernel is as it was."""


@dataclass
class SymmetricDecomposer:
    """Decomposes symmetric kernels: on a device if there is one, else by LAPACK.

    A device always gives eigenvectors. Without one, or where it fails, they are computed if `eigenvectors` asks for
    them; a tridiagonal matrix or a band is enough for everything else.

    eigenvectors: whether they are needed.
    device_eigh: what decomposes on a device (`ntk_dist.solvers.device_eigen.DeviceEigh`), or None.
    place: chooses between the device and LAPACK by time; None takes the device, so that bits do not depend on time.
    fallbacks: why the device gave no decomposition, once for every kernel for which it gave none.
    """

    eigenvectors: bool
    device_eigh: Eigh | None = None
    place: FasterPlace | None = None
    fallbacks: list[str] = field(default_factory=list)

    def __call__(
        self, K: FloatArray, found: tuple[FloatArray, FloatArray] | None = None
    ) -> EigenDecomposition | BandDecomposition | TridiagonalDecomposition:
        """Decompose K (M, M), which is overwritten when it is in Fortran order. Raises as the decompositions do.

        `found` are its eigenvalues and eigenvectors where they are known already.
        """
        if found is not None:
            return EigenDecomposition(K, lambda _: found)
        if self.device_eigh is not None and self.goes_to_device(len(K)):
            try:
                with self.timed(len(K), on_device=True):
                    return EigenDecomposition(K, self.device_eigh)
            except DeviceFailure as failure:
                logger.info("decomposed on the processor: %s", failure)
                self.fallbacks.append(str(failure))
        elif self.device_eigh is not None and self.place is not None:
            self.fallbacks.append(self.place.why(len(K)))
        with self.timed(len(K), on_device=False):
            return EigenDecomposition(K) if self.eigenvectors else _with_eigenvalues(reduce_symmetric(K))

    def goes_to_device(self, size: int) -> bool:
        """Return whether a kernel of `size` rows is decomposed on the device."""
        return self.device_eigh is not None and (self.place is None or self.place.on_device(size))

    @contextmanager
    def timed(self, size: int, *, on_device: bool, kernels: int = 1) -> Iterator[None]:
        """Note what decomposing kernels of `size` rows takes, unless it fails."""
        began = time.perf_counter()
        yield
        if self.place is not None:
            self.place.took(size, (time.perf_counter() - began) / kernels, on_device=on_device)


def _with_eigenvalues(
    found: BandDecomposition | TridiagonalDecomposition,
) -> BandDecomposition | TridiagonalDecomposition:
    """Return a reduced kernel whose eigenvalues are computed, which every solve needs."""
    _ = found.eigenvalues
    return found


def quadratic_form(K: FloatArray, targets: FloatArray) -> float:
    """Return tr Y^T K Y for a symmetric K (M, M) in Fortran order, whose lower triangle is read, and Y (M, k)."""
    # For a column or two symv and its call cost a fraction of what symm prepares.
    return float(sum(column @ blas.dsymv(1.0, K, column, lower=1) for column in np.ascontiguousarray(targets.T)))
