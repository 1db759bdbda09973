"""The numbers that a solve stage has one of for each layer set, stored as one array."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ntk_dist.arrays import FloatArray
from orchestrator.stages.base.parameters import ProblemParameters
from orchestrator.store.artifacts import Artifact
from orchestrator.store.batched import Array

SCALARS = "scalars"
"""Name of the array, (numbers, layer sets), and of the fact that names its rows."""


def packed(columns: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the facts and the arrays that hold columns (S,) each: one array, because each has a fixed cost."""
    return {SCALARS: list(columns)}, {SCALARS: np.array(list(columns.values()), dtype=np.float64)}


def scalars_of(artifact: Artifact) -> dict[str, FloatArray]:
    """Return the columns that were `packed` into the artifact of a solve stage.

    Raises:
        DamagedArtifactError: they do not match their checksum.
    """
    return dict(zip(artifact.facts[SCALARS], artifact.array(SCALARS), strict=True))


def summary_settings(problem: ProblemParameters) -> dict[str, float]:
    """Return the settings of a spectrum's summary from the spec: two sigmas and two roundoffs."""
    from ntk_dist.spectrum.spectrum import machine_epsilon, products_eps

    return {
        "sigma": problem.kernel.sigma,
        "relative_sigma": problem.kernel.relative_sigma,
        "jacobian_eps": machine_epsilon(problem.scorer.dtype, problem.scorer.row_dtype),
        "gram_eps": products_eps(problem.gram_dtype, tf32=problem.kernel_device.tf32),
    }
