"""Rows of the tables, from the artifact of a solve stage."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ntk_dist.spectrum.lora_rank import rank_threshold
from orchestrator.plan.plan import Plan
from orchestrator.results.tables.cell_columns import CELLS, RIDGE_COLUMNS, SPECTRUM_COLUMNS
from orchestrator.results.tables.columns import Column, arrow_schema
from orchestrator.results.tables.constants import variant_constants
from orchestrator.results.tables.schema import DENSITIES, PREDICTIONS, SPECTRA, TRAJECTORIES, UPDATES
from orchestrator.results.tables.training import (
    compared_in,
    training_columns,
    training_halvings,
    trajectory_columns,
    update_columns,
)
from orchestrator.stages.base.cells import Solve, cell_ids
from orchestrator.store.artifacts import Artifact
from orchestrator.sweep.layer_sets import LayerSet

if TYPE_CHECKING:
    from orchestrator.stages.solve.path import LambdaPath  # loads much that `plan` and `status` need not wait for

CELLS_SCHEMA = arrow_schema("cells", CELLS)
SPECTRA_SCHEMA = arrow_schema("spectra", SPECTRA)
DENSITIES_SCHEMA = arrow_schema("densities", DENSITIES)
PREDICTIONS_SCHEMA = arrow_schema("predictions", PREDICTIONS)
TRAJECTORIES_SCHEMA = arrow_schema("trajectories", TRAJECTORIES)
UPDATES_SCHEMA = arrow_schema("updates", UPDATES)


def cells_of(
    plan: Plan,
    solve: Solve,
    artifact: Artifact,
    compared: Mapping[str, Artifact],
    first_in_train: Mapping[str, np.ndarray],
    *,
    paths: "Iterable[LambdaPath]",
) -> pa.RecordBatch:
    """Return the cells of a solve stage: one for each of its layer sets and every lambda.

    Args:
        plan: the plan.
        solve: the solve stage.
        artifact: its artifact.
        compared: artifacts of those of its comparisons that are finished, by stage.
        first_in_train: for each example of a split the position of the first training example with its text, or -1.
        paths: what each lambda gives, layer set by layer set.

    Raises:
        DamagedArtifactError: the artifact does not match its checksums.
    """
    lambdas, sets = plan.lambdas, solve.layer_sets
    n_lambdas = len(lambdas)
    scale = plan.sweep.spec.grid.lambdas.scale
    columns: dict[str, Any] = _constants(plan, solve) | _provenance(artifact, len(sets) * n_lambdas)
    columns |= {
        "cell_id": [cell for layer_set in sets for cell in cell_ids(solve, layer_set, lambdas, scale)],
        "lambda_given": np.tile(lambdas, len(sets)),
        "lambda_scale": scale,
        **_copies(first_in_train, solve.n_train),
    }
    for name, values in _layer_set_columns(sets).items():
        columns[name] = [value for value in values for _ in range(n_lambdas)]
    fallbacks = artifact.facts.get("fallbacks", {})
    columns["fallback"] = [fallbacks.get(str(position)) for position in range(len(sets)) for _ in range(n_lambdas)]
    missing = artifact.facts.get("missing_estimates", {})
    columns["missing_estimates"] = "; ".join(f"{name}: {why}" for name, why in missing.items()) or None
    of_sets = [path.columns for path in paths]
    own = {column.name for column in (*SPECTRUM_COLUMNS, *RIDGE_COLUMNS)}.difference(of_sets[0])
    stored = artifact.arrays([name for name in artifact.names() if name in own])
    for column in (*SPECTRUM_COLUMNS, *RIDGE_COLUMNS):
        if column.name in of_sets[0]:
            columns[column.name] = np.concatenate([found[column.name] for found in of_sets])
        elif column.name in stored:
            columns[column.name] = np.repeat(stored[column.name], n_lambdas)
    columns |= training_columns(solve, n_lambdas, compared)
    columns["halvings"] = training_halvings(solve, n_lambdas, compared, columns["halvings"])
    return _batch(CELLS_SCHEMA, CELLS, columns, len(sets) * n_lambdas)


def spectra_of(plan: Plan, solve: Solve, artifact: Artifact) -> pa.RecordBatch:
    """Return one row for each layer set of a solve stage.

    Raises:
        DamagedArtifactError: the artifact does not match its checksums.
    """
    sets = solve.layer_sets
    stored = set(artifact.names())
    names = [f"eigenvalues.{position}" for position in range(len(sets))]
    columns = _constants(plan, solve) | {
        "layer_set": [layer_set.name for layer_set in sets],
        "groups": [list(layer_set.groups) for layer_set in sets],
        "kernel_size": np.array(artifact.array("kernel_size")),
        "eigenvalues": [np.array(artifact.array(name)[::-1]) if name in stored else None for name in names],
    }
    return _batch(SPECTRA_SCHEMA, SPECTRA, columns, len(sets))


def densities_of(plan: Plan, solve: Solve, artifact: Artifact) -> pa.RecordBatch:
    """Return one row for each layer set of a solve stage whose kernel was not decomposed.

    Raises:
        DamagedArtifactError: the artifact does not match its checksums.
    """
    stored = set(artifact.names())
    sets = solve.layer_sets if "density.0" in stored else ()
    iterative = solve.stage.parameters.iterative
    columns: dict[str, Any] = _constants(plan, solve) | {
        "layer_set": [layer_set.name for layer_set in sets],
        "groups": [list(layer_set.groups) for layer_set in sets],
        "probe_seed": iterative.probe_seed if iterative else None,
    }
    for column in DENSITIES:
        if sets and column.name in stored:
            columns[column.name] = np.array(artifact.array(column.name))
        elif f"{column.name}.0" in stored:
            columns[column.name] = [np.array(artifact.array(f"{column.name}.{i}")) for i in range(len(sets))]
    return _batch(DENSITIES_SCHEMA, DENSITIES, columns, len(sets))


def predictions_of(
    plan: Plan, solve: Solve, paths: "Iterable[LambdaPath]", rows: np.ndarray
) -> Iterator[pa.RecordBatch]:
    """Yield, for each layer set of a solve stage, a row for every lambda, evaluation example and output.

    Args:
        plan: the plan.
        solve: the solve stage.
        paths: what each lambda gives, layer set by layer set.
        rows: row of each evaluation example in its split.

    Raises:
        DamagedArtifactError: the artifact does not match its checksums.
    """
    lambdas, scale = plan.lambdas, plan.sweep.spec.grid.lambdas.scale
    for layer_set, path in zip(solve.layer_sets, paths, strict=True):
        values = path.predictions
        per_cell = values[0].size
        outputs = per_cell // len(rows)
        columns = _constants(plan, solve) | {
            "cell_id": np.repeat(cell_ids(solve, layer_set, lambdas, scale), per_cell),
            "layer_set": layer_set.name,
            "lambda_given": np.repeat(lambdas, per_cell),
            "example": np.tile(np.repeat(rows, outputs), len(lambdas)),
            "output": np.tile(np.arange(outputs), len(rows) * len(lambdas)),
            "prediction": values.ravel(),
        }
        yield _batch(PREDICTIONS_SCHEMA, PREDICTIONS, columns, per_cell * len(lambdas))


def trajectories_of(plan: Plan, solve: Solve, compared: Mapping[str, Artifact]) -> Iterator[pa.RecordBatch]:
    """Yield a row for every cell of the finished comparisons of a solve stage, and every look at it in training.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    for comparison, artifact in compared_in(solve, compared):
        columns = _constants(plan, solve) | trajectory_columns(plan, solve, comparison, artifact)
        yield _batch(TRAJECTORIES_SCHEMA, TRAJECTORIES, columns, len(columns["cell_id"]))


def updates_of(plan: Plan, solve: Solve, compared: Mapping[str, Artifact]) -> Iterator[pa.RecordBatch]:
    """Yield a row for every cell of the finished comparisons of a solve stage, and every group that was trained.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    for comparison, artifact in compared_in(solve, compared):
        columns = _constants(plan, solve) | update_columns(plan, solve, comparison, artifact)
        yield _batch(UPDATES_SCHEMA, UPDATES, columns, len(columns["cell_id"]))


def _constants(plan: Plan, solve: Solve) -> dict[str, Any]:
    variant = plan.variants[solve.variant]
    constants = variant_constants(variant) | {"seed": solve.seed, "n_train": solve.n_train}
    if variant.sweep.spec.adapter.kind != "lora":
        return constants
    return constants | {"rank_threshold": rank_threshold(solve.n_train, variant.sizes.rows_per_example)}


def _copies(first_in_train: Mapping[str, np.ndarray], n_train: int) -> dict[str, int]:
    """Return how many of `n_train` training examples repeat an earlier one, and how many evaluation examples do."""
    train, evaluation = first_in_train["train"][:n_train], first_in_train["eval"]
    return {
        "repeats_in_train": int((train < np.arange(n_train)).sum()),
        "eval_in_train": int(((evaluation >= 0) & (evaluation < n_train)).sum()),
    }


def _layer_set_columns(sets: Sequence[LayerSet]) -> dict[str, list[Any]]:
    return {
        "layer_set": [s.name for s in sets],
        "n_layers": [len(s.layers) for s in sets],
        "lowest_layer": [s.layers[0] if s.layers else None for s in sets],
        "highest_layer": [s.layers[-1] if s.layers else None for s in sets],
        "n_parameters": [s.n_parameters for s in sets],
    }


def _provenance(artifact: Artifact, n_cells: int) -> dict[str, Any]:
    origin = artifact.provenance
    versions: Mapping[str, str] = origin["versions"]
    return {
        "stage_id": origin["stage_id"],
        "host": origin["host"],
        "device": origin["device"],
        "job": origin["job"],
        "attempt": origin["attempt"],
        "seconds": origin["seconds"] / n_cells,
        "peak_memory_bytes": origin["peak_memory_bytes"],
        "finished": datetime.fromtimestamp(round(origin["finished"], 3), UTC),
        "python": origin["python"],
        "git": origin["git"],
        "halvings": origin.get("most_halvings", 0),
        **{name: versions.get(name) for name in ("ntksweep", "torch", "transformers", "numpy", "scipy")},
    }


def _batch(schema: pa.Schema, columns: Sequence[Column], values: Mapping[str, Any], n_rows: int) -> pa.RecordBatch:
    arrays = [_array(values.get(column.name), column.type, n_rows) for column in columns]
    return pa.record_batch(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType, n_rows: int) -> pa.Array:
    if values is None or isinstance(values, (str, int, float, datetime)):
        return pa.repeat(pa.scalar(values, kind), n_rows)
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        # A quantity that does not exist for a cell is nan in the arrays and null in the tables.
        array = pa.array(np.ascontiguousarray(values), from_pandas=True)
        return array.cast(kind)
    return pa.array(values, kind)
