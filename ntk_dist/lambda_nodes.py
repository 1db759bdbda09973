"""The lambdas whose solutions span those of all lambdas, see `ntk_dist.kept_path`; without the libraries of algebra."""

import numpy as np

from ntk_dist.kernel_matrix import FloatArray

NODES_PER_DECADE = 8
LOWEST, HIGHEST = 1e-15, 1e2
"""Lambdas that span the space, relative to the largest eigenvalue. Below them K + lambda I is singular to rounding."""


def node_lambdas(largest: float) -> FloatArray:
    """Return the lambdas whose solutions span those of all lambdas, for a kernel with that largest eigenvalue."""
    count = round(NODES_PER_DECADE * np.log10(HIGHEST / LOWEST)) + 1
    nodes: FloatArray = np.geomspace(LOWEST, HIGHEST, count) * (largest if largest > 0 else 1.0)
    return nodes
