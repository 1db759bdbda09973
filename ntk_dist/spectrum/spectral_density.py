"""The density of the eigenvalues, estimated from products with the kernel alone: stochastic Lanczos quadrature."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.tile_operator import TileOperator
from ntk_dist.solvers.lanczos import LanczosRuns

PROBES = 10
DENSITY_STEPS = 64
WIDTH = 0.1
"""Standard deviation of the Gaussians that a density is smoothed with, in powers of ten."""


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """Quadrature of a kernel's spectrum: tr f(K) is estimated by sum_j weights_j f(nodes_j).

    nodes: (m,), ascending.
    weights: (m,), nonnegative; their sum is M.
    """

    nodes: FloatArray
    weights: FloatArray

    def smoothed(self, floor: float) -> tuple[FloatArray, FloatArray]:
        """Return a grid of eigenvalues (g,), even on a logarithmic scale, and the density there, (g,).

        The density counts eigenvalues for each power of ten; its integral over log10 of the grid is M. Nodes below
        `floor` > 0 count as if they lay there. A floor of 0 is that of a kernel without eigenvalues; both are empty.
        """
        if floor <= 0:
            return np.empty(0), np.empty(0)
        places = np.log10(np.maximum(self.nodes, floor))
        # Eight deviations beyond both ends nothing is left; two points a deviation make the sum over the grid exact.
        start, stop, step = places.min() - 8 * WIDTH, places.max() + 8 * WIDTH, WIDTH / 2
        grid = start + step * np.arange(int(np.ceil((stop - start) / step)) + 1)
        bells = np.exp(-(((grid[:, None] - places) / WIDTH) ** 2) / 2) / (WIDTH * np.sqrt(2 * np.pi))
        return 10**grid, bells @ self.weights


def spectral_density(
    K: TileOperator, *, seed: int, probes: int = PROBES, steps: int = DENSITY_STEPS
) -> SpectralDensity:
    """Estimate the density of the eigenvalues of K (M, M) by stochastic Lanczos quadrature.

    For probes z of random signs, drawn by `seed`, the Gauss quadrature of z^T f(K) z has the eigenvalues of the
    Lanczos process's T as nodes and the squared first entries of its eigenvectors, times M, as weights (Ubaru, Chen
    and Saad, SIAM J. Matrix Anal. Appl. 38, 2017, algorithm 1). The relative error falls as 1 / sqrt(probes).
    """
    M = K.shape[0]
    runs = LanczosRuns(K, np.random.default_rng([seed, 0]).choice([-1.0, 1.0], size=(M, probes)), steps)
    while runs.running:
        runs.advance()
    found = [_eigh(*runs.tridiagonal(c)) for c in range(probes)]
    nodes = np.concatenate([values for values, _ in found])
    weights = np.concatenate([vectors[0] ** 2 for _, vectors in found]) * (M / probes)
    order = np.argsort(nodes, kind="stable")
    return SpectralDensity(nodes[order], weights[order])


def _eigh(diagonal: FloatArray, off: FloatArray) -> tuple[FloatArray, FloatArray]:
    values, vectors = scipy.linalg.eigh_tridiagonal(diagonal, off)
    return np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)
