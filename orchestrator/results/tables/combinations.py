"""Rows of the table `combinations`, from the artifacts of stages `combine`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.plan.plan import Plan
from orchestrator.results.tables.columns import arrow_schema
from orchestrator.results.tables.schema import COMBINATIONS
from orchestrator.stages.combine.combinations import SIDES, combinations_of
from orchestrator.stages.combine.plan import Combination
from orchestrator.store.artifacts import Artifact, ArtifactStore

COMBINATIONS_SCHEMA = arrow_schema("combinations", COMBINATIONS)


def combinations_rows(plan: Plan, store: ArtifactStore) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the stages that are finished, a batch a stage.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    finished = store.finished("combine") if plan.filled_by(Combination) else set()
    for combination in plan.filled_by(Combination):
        if combination.stage.stage_id in finished:
            yield _batch(plan, combination, store.read("combine", combination.stage.stage_id))


def unfinished_combinations(plan: Plan, store: ArtifactStore) -> int:
    """Return how many stages `combine` of a plan are not finished."""
    finished = store.finished("combine") if plan.filled_by(Combination) else set()
    return sum(combination.stage.stage_id not in finished for combination in plan.filled_by(Combination))


def _batch(plan: Plan, combination: Combination, artifact: Artifact) -> pa.RecordBatch:
    """Return a row for each task to evaluate, combination and lambda, in this order."""
    parameters = combination.stage.parameters
    choices = [plan.variants[position].choice for position in (combination.variant, combination.other_variant)]
    tasks = dict(zip(SIDES, (str(choice.task) for choice in choices), strict=True))
    planned = combinations_of(parameters.operations, parameters.coefficients)
    lambdas = parameters.a.cells.lambdas
    rows = [(side, each, strength) for side in SIDES for each in planned for strength in lambdas]
    spec = plan.variants[combination.variant].sweep.spec
    columns: dict[str, Any] = {name: np.array(artifact.array(name)).ravel() for name in artifact.names()}
    constants = {
        "sweep": spec.name,
        "adapter_rank": spec.adapter.rank if spec.adapter.kind == "lora" else None,
        "learning_rate": spec.finetune.learning_rate if spec.finetune else None,
        "seed": combination.seed,
        "n_train": combination.n_train,
        "outputs": spec.kernel.outputs,
        "layer_set": combination.layer_set,
        "lambda_scale": spec.grid.lambdas.scale,
    }
    columns |= {name: [value] * len(rows) for name, value in constants.items()}
    columns |= {
        "task_a": [tasks[each.first] for _, each, _ in rows],
        "task_b": [tasks[each.second] for _, each, _ in rows],
        "eval_task": [tasks[side] for side, _, _ in rows],
        "operation": [each.operation for _, each, _ in rows],
        "coefficient": [each.coefficient for _, each, _ in rows],
        "lambda_given": [strength for _, _, strength in rows],
    }
    nothing = [None] * len(rows)
    arrays = [pa.array(columns.get(column.name, nothing), column.type, from_pandas=True) for column in COMBINATIONS]
    return pa.record_batch(arrays, schema=COMBINATIONS_SCHEMA)
