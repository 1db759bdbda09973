"""The choice of a decomposition for a symmetric kernel, and the fallback where a device fails."""

import logging
from dataclasses import dataclass, field

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.eigen import EigenDecomposition, Eigh
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition

logger = logging.getLogger(__name__)


class DeviceFailure(Exception):  # noqa: N818 -- not the user's error: the caller goes on without the device
    """A device gave no decomposition; the message says why. The kernel is as it was."""


@dataclass
class SymmetricDecomposer:
    """Decomposes symmetric kernels: on a device if there is one, else by LAPACK.

    A device always gives eigenvectors. Without one, or where it fails, they are computed if `eigenvectors` asks for
    them; the tridiagonal form is enough for everything else.

    eigenvectors: whether they are needed.
    device_eigh: what decomposes on a device (`ntk_dist.solvers.device_eigen.DeviceEigh`), or None.
    fallbacks: why the device gave no decomposition, once for every kernel for which it gave none.
    """

    eigenvectors: bool
    device_eigh: Eigh | None = None
    fallbacks: list[str] = field(default_factory=list)

    def __call__(self, K: FloatArray) -> EigenDecomposition | TridiagonalDecomposition:
        """Decompose K (M, M), which is overwritten when it is in Fortran order. Raises as the decompositions do."""
        if self.device_eigh is not None:
            try:
                return EigenDecomposition(K, self.device_eigh)
            except DeviceFailure as failure:
                logger.info("decomposed on the processor: %s", failure)
                self.fallbacks.append(str(failure))
        return EigenDecomposition(K) if self.eigenvectors else TridiagonalDecomposition(K)
