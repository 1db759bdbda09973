"""The lambdas whose solutions span those of all lambdas, see `ntk_dist.solvers.kept_path`; loads no algebra."""

import math

import numpy as np

from ntk_dist.arrays import FloatArray

NODES_PER_DECADE = 8
LOWEST = 1e-15
"""Smallest lambda relative to the largest eigenvalue: below it K + lambda I is singular to rounding."""

BEYOND = 10**1.5
"""Factor by which the nodes extend beyond the spectrum. Solutions of lambdas further away lie, to rounding, in the
space of those of the nodes and of lambda = 0 and infinity: s / lambda, or lambda / s, is small there."""

MOST_NODES = math.ceil(NODES_PER_DECADE * math.log10(BEYOND / LOWEST)) + 2


def node_lambdas(smallest: float, largest: float) -> FloatArray:
    """Return the lambdas whose solutions, with the right side, span those of all lambdas.

    Args:
        smallest: the smallest eigenvalue of the kernel; rounding may leave it negative.
        largest: the largest one.
    """
    scale = largest if largest > 0 else 1.0
    low, high = max(smallest / scale / BEYOND, LOWEST), BEYOND
    count = math.ceil(NODES_PER_DECADE * math.log10(high / low)) + 1
    return np.concatenate([[LOWEST], np.geomspace(low, high, count)]) * scale
