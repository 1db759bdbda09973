"""Rows of the table `additions`, from the artifacts of the stages of that name."""

from collections.abc import Iterator

import numpy as np

from orchestrator.stages.additions.planning import Additions
from orchestrator.stages.base.constants import variant_constants
from orchestrator.stages.base.tables import Rows
from orchestrator.stages.context.finished import Finished


def additions_rows(finished: Finished) -> Iterator[Rows]:
    """Yield a row for every layer that is added to a layer set.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    for additions in finished.filled(Additions):
        artifact, rows = finished.artifact(additions.stage), additions.rows
        columns = variant_constants(finished.plan.variants[additions.variant]) | {
            "seed": additions.seed,
            "n_train": additions.n_train,
            "learning_rate": None,
            "layer_set": [row.layer_set.name for row in rows],
            "added_layer": [row.layer for row in rows],
            "added_groups": [list(row.groups) for row in rows],
            "n_parameters_added": [row.n_parameters for row in rows],
        }
        found = {name: np.array(artifact.array(name)) for name in artifact.names()}
        by_lambda = {name: values.tolist() for name, values in found.items() if values.ndim > 1}
        yield Rows(columns | found | by_lambda, len(rows))
