"""Rows of the table `smoothness`, from the artifacts of its stages."""

from collections.abc import Iterator

import numpy as np

from orchestrator.stages.base.constants import solve_constants
from orchestrator.stages.base.tables import Rows
from orchestrator.stages.compare.rows import cell_columns
from orchestrator.stages.context.finished import Finished
from orchestrator.stages.smoothness import Smoothed


def smoothness_rows(finished: Finished) -> Iterator[Rows]:
    """Yield a row for each radius of a layer set, in the order of the spec, and for each of its trained cells.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    for smoothed in finished.filled(Smoothed):
        artifact, solve = finished.artifact(smoothed.stage), smoothed.solve
        numbers = {name: np.array(artifact.array(name)) for name in artifact.names()}
        numbers["examples"] = np.full(len(numbers["distance"]), smoothed.stage.parameters.examples)
        n_random = len(smoothed.stage.parameters.radii)
        if n_random:
            constants = solve_constants(finished.plan.variants[solve.variant], solve)
            layer_set = solve.layer_sets[smoothed.comparison.layer_set].name
            random = {name: values[:n_random] for name, values in numbers.items()}
            yield Rows(constants | {"layer_set": layer_set, "place": "random"} | random, n_random)
        columns = cell_columns(finished.plan, solve, smoothed.comparison, 1) | {"place": "trained"}
        cells = list(smoothed.comparison.in_grid)
        yield Rows(columns | {name: values[n_random:][cells] for name, values in numbers.items()}, len(cells))
