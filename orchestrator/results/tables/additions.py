"""Rows of the table `additions`, from the artifacts of the stages of that name."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.plan.plan import Plan
from orchestrator.results.tables.columns import arrow_schema
from orchestrator.results.tables.constants import variant_constants
from orchestrator.results.tables.schema import ADDITIONS
from orchestrator.stages.additions.plan import Additions
from orchestrator.store.artifacts import ArtifactStore

ADDITIONS_SCHEMA = arrow_schema("additions", ADDITIONS)


def additions_of(plan: Plan, store: ArtifactStore) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the stages that are finished, a batch a stage.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    finished = store.finished("additions")
    for additions in plan.filled_by(Additions):
        if additions.stage.stage_id not in finished:
            continue
        artifact = store.read("additions", additions.stage.stage_id)
        rows = additions.rows
        columns: dict[str, Any] = {name: np.array(artifact.array(name)) for name in artifact.names()}
        constants = variant_constants(plan.variants[additions.variant]) | {
            "seed": additions.seed,
            "n_train": additions.n_train,
            "learning_rate": None,
        }
        columns |= {name: [value] * len(rows) for name, value in constants.items()}
        columns |= {
            "layer_set": [row.layer_set.name for row in rows],
            "added_layer": [row.layer for row in rows],
            "added_groups": [list(row.groups) for row in rows],
            "n_parameters_added": [row.n_parameters for row in rows],
        }
        arrays = [pa.array(columns[column.name], column.type) for column in ADDITIONS]
        yield pa.record_batch(arrays, schema=ADDITIONS_SCHEMA)


def unfinished_additions(plan: Plan, store: ArtifactStore) -> int:
    """Return how many stages `additions` of a plan are not finished."""
    finished = store.finished("additions") if plan.filled_by(Additions) else set()
    return sum(additions.stage.stage_id not in finished for additions in plan.filled_by(Additions))
