"""Estimates from products with a kernel that is too large to be decomposed."""

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.kernel.tile_operator import TileOperator
from ntk_dist.solvers.krylov_ridge import KrylovRidge, krylov_ridge
from ntk_dist.spectrum.extremes import End, ends_of_spectrum
from ntk_dist.spectrum.spectral_density import SpectralDensity, spectral_density
from ntk_dist.spectrum.spectrum import SpectrumSummary, alignment, condition_number, noise_floor


class IterativeDecomposition:
    """A symmetric positive semidefinite K (M, M) of which only products are taken.

    `seed` draws the start vectors. size: M. trace, norm: tr K and |K|_F, exact. largest, smallest: the ends of the
    spectrum. density: an estimate of the density of the eigenvalues.
    Raises KernelShapeError for an operator that is not square, NonFiniteError if K holds nan or inf.
    """

    def __init__(self, K: TileOperator, *, seed: int) -> None:
        if K.shape[0] != K.shape[1] or not K.symmetric:
            raise KernelShapeError(f"only a symmetric kernel has a spectrum, got a matrix of shape {K.shape}")
        self.K = K
        self.size = K.shape[0]
        self.norm = float(np.sqrt(K.squared_norm()))
        self.trace = K.trace()
        self.density: SpectralDensity = spectral_density(K, seed=seed)
        self.largest: End
        self.smallest: End
        self.largest, self.smallest = ends_of_spectrum(K, norm=self.norm, seed=seed)

    def keep(self, residual: FloatArray, evaluation: TileOperator, lowest: float) -> KrylovRidge:
        """See `krylov_ridge`."""
        return krylov_ridge(self.K, evaluation, residual, lowest)

    def label_alignment(self, targets: FloatArray) -> float:
        """Return <K, Y Y^T> / (|K|_F |Y Y^T|_F) for targets Y (M, k), as `spectrum.label_alignment` does."""
        return alignment(float(np.vdot(targets, self.K.matmat(targets))), self.norm, targets)

    def summary(self, *, sigma: float, relative_sigma: float, jacobian_eps: float, gram_eps: float) -> SpectrumSummary:
        """Return a summary as `ntk_dist.spectrum.spectrum.summarize` does; numbers that need every eigenvalue are nan.

        A condition number counts as resolved only if sigma_min exceeds the noise floor by more than its residual.
        """
        sigma_max, sigma_min = float(self.largest.values[0]), float(self.smallest.values[0])
        floor = noise_floor(sigma_max, size=self.size, trace=self.trace, jacobian_eps=jacobian_eps, gram_eps=gram_eps)
        return SpectrumSummary(
            sigma_max=sigma_max,
            sigma_min=sigma_min,
            trace=self.trace,
            condition_number=sigma_max / sigma_min if sigma_min > 0 else np.inf,
            condition_number_resolved=sigma_min - float(self.smallest.residuals[0]) > floor,
            condition_number_fixed_sigma=condition_number(sigma_max, sigma_min, sigma),
            condition_number_relative_sigma=condition_number(
                sigma_max, sigma_min, relative_sigma * self.trace / self.size
            ),
            effective_rank=float("nan"),
            decay_exponent=float("nan"),
            noise_floor=floor,
        )
