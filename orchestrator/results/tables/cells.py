"""The table `cells`: one row a cell, with columns that kinds of stages fill."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np

from orchestrator.stages.base.cells import Solve, cell_ids
from orchestrator.stages.base.columns import LEARNING_RATE, RANK, TASK
from orchestrator.stages.base.constants import solve_constants
from orchestrator.stages.base.tables import COUNT, FLAG, NAME, REAL, TIME, Column, Rows, Table
from orchestrator.stages.compare.rows import compared_in, training_columns
from orchestrator.stages.context.finished import Finished
from orchestrator.stages.registry import KINDS
from orchestrator.stages.solve.columns import RIDGE_COLUMNS, SPECTRUM_COLUMNS
from orchestrator.store.artifacts import Artifact
from orchestrator.sweep.layer_sets import LayerSet

GRID_COLUMNS = (
    Column("cell_id", NAME, "identity of the cell: hash of everything that fixes its numbers"),
    Column("sweep", NAME, "name of the sweep"),
    Column("model", NAME, "folder name or hub id of the model"),
    TASK,
    Column("task_kind", NAME, "classification or regression"),
    Column("adapter", NAME, "lora or none"),
    RANK,
    Column(
        "rank_threshold",
        COUNT,
        "smallest r with r (r + 1)/2 > K N for N training examples and K outputs that are trained, from which on LoRA "
        "has no spurious local minima if the model is linear in its weights (arXiv 2402.11867); null without adapter",
    ),
    Column("head", NAME, "kind of head"),
    Column("head_in_kernel", FLAG, "whether the head's parameters are in the kernel"),
    Column("kernel", NAME, "sgd, sign or asymmetric_sign"),
    Column("outputs", NAME, "which outputs the kernel keeps: full, trace or margin"),
    Column("dtype", NAME, "precision of model and Jacobian"),
    LEARNING_RATE,
    Column("seed", COUNT, "seed of the grid"),
    Column("n_train", COUNT, "training examples", "examples"),
    Column("n_eval", COUNT, "evaluation examples", "examples"),
    Column("repeats_in_train", COUNT, "training examples whose text an earlier one has", "examples"),
    Column("eval_in_train", COUNT, "evaluation examples whose text is a training example's too", "examples"),
    Column("layer_set", NAME, "name of the layer set"),
    Column("n_layers", COUNT, "layers that the set touches", "layers"),
    Column("lowest_layer", COUNT, "lowest layer of the set; null if it touches none"),
    Column("highest_layer", COUNT, "highest layer of the set; null if it touches none"),
    Column("n_parameters", COUNT, "parameters of the set, without structurally zero ones", "parameters"),
    Column("lambda_given", REAL, "lambda as the spec gives it"),
    Column("lambda_scale", NAME, "absolute, or trace: in units of trace/M"),
)

PROVENANCE_COLUMNS = tuple(
    Column(name, kind, meaning, unit, provenance=True)
    for name, kind, meaning, unit in (
        ("stage_id", NAME, "stage that computed the cell", ""),
        ("host", NAME, "machine that computed it", ""),
        ("device", NAME, "processor or accelerator that computed it", ""),
        ("job", NAME, "Slurm job; null outside Slurm", ""),
        ("attempt", COUNT, "how often the stage was begun in its run", ""),
        ("seconds", REAL, "time of the stage divided by its cells", "s"),
        ("peak_memory_bytes", COUNT, "peak resident memory of the worker during the stage", "B"),
        ("finished", TIME, "when the stage was finished", ""),
        ("python", NAME, "version of Python", ""),
        ("ntksweep", NAME, "version of ntksweep", ""),
        ("torch", NAME, "version of torch", ""),
        ("transformers", NAME, "version of transformers", ""),
        ("numpy", NAME, "version of numpy", ""),
        ("scipy", NAME, "version of scipy", ""),
        ("git", NAME, "commit of ntksweep's checkout; null when installed from a package", ""),
        (
            "halvings",
            COUNT,
            "most often that a stage below the cell had its batches halved to fit into memory; where not 0, numbers "
            "agree with those of whole batches to rounding only",
            "",
        ),
        (
            "fallback",
            NAME,
            "why the kernel was decomposed on the processor although compute.device asks for a GPU; null where it was "
            "not",
            "",
        ),
    )
)


def stage_of(column: str) -> str | None:
    """Return the kind of stage that fills a column; None for what names a cell and says where it was computed."""
    return next((name for name, kind in KINDS.items() if any(each.name == column for each in kind.cell_columns)), None)


def cells_rows(finished: Finished) -> Iterator[Rows]:
    """Yield one row for each layer set of a solve stage and every lambda.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    first_in_train = cache(lambda dataset: _first_in_train(finished.store.open(*dataset)))
    for solve in finished.filled(Solve):
        rows = _cells_of(finished, solve, first_in_train(*solve.stage.inputs["dataset"]))
        trained_on = {each.stage.inputs["dataset"][0] for each, _ in compared_in(finished, solve)}
        n_trained = finished.plan.variants[solve.variant].sizes.trained_with(solve.n_train)
        if trained_on and n_trained != solve.n_train:
            (dataset,) = trained_on
            copies = _copies(first_in_train(dataset), n_trained)
            rows = Rows({**rows.columns, "finetune_eval_in_train": copies["eval_in_train"]}, rows.n_rows)
        yield rows


def _cells_of(finished: Finished, solve: Solve, first_in_train: Mapping[str, np.ndarray]) -> Rows:
    """Return the cells of a solve stage.

    Args:
        finished: finished stages of the plan.
        solve: the solve stage.
        first_in_train: for each example of a split the position of the first training example with its text, or -1.
    """
    # They load much that `plan` and `status` do without.
    from orchestrator.stages.solve.path import NO_UNIT
    from orchestrator.stages.solve.rows import dataset_of, paths_of
    from orchestrator.stages.solve.scalars import scalars_of

    plan, artifact, sets = finished.plan, finished.artifact(solve.stage), solve.layer_sets
    lambdas, scale = plan.lambdas, plan.sweep.spec.grid.lambdas.scale
    n_lambdas = len(lambdas)
    columns: dict[str, Any] = solve_constants(plan.variants[solve.variant], solve)
    columns |= _provenance(artifact, len(sets) * n_lambdas)
    columns |= {
        "cell_id": [cell for layer_set in sets for cell in cell_ids(solve, layer_set, lambdas, scale)],
        "lambda_given": np.tile(lambdas, len(sets)),
        "lambda_scale": scale,
        **_copies(first_in_train, solve.n_train),
    }
    for name, values in _layer_set_columns(sets).items():
        columns[name] = _for_cells(values, n_lambdas)
    fallbacks = artifact.facts.get("fallbacks", {})
    columns["fallback"] = _for_cells([fallbacks.get(str(position)) for position in range(len(sets))], n_lambdas)
    missing = artifact.facts.get("missing_estimates", {})
    of_sets = [path.columns for path in paths_of(plan, solve, artifact, dataset_of(finished, solve))]
    no_units = [{"lambda": NO_UNIT} if np.isnan(found["lambda"]).any() else {} for found in of_sets]
    columns["missing_estimates"] = _for_cells([_reasons(missing | each) for each in no_units], n_lambdas)
    stored = scalars_of(artifact)
    for column in (*SPECTRUM_COLUMNS, *RIDGE_COLUMNS):
        if column.name in of_sets[0]:
            columns[column.name] = np.concatenate([found[column.name] for found in of_sets])
        elif column.name in stored:
            columns[column.name] = np.repeat(stored[column.name], n_lambdas)
    columns |= training_columns(finished, solve, columns["halvings"])
    return Rows(columns, len(sets) * n_lambdas)


def _reasons(missing: Mapping[str, str]) -> str | None:
    return "; ".join(f"{name}: {why}" for name, why in missing.items()) or None


def _for_cells(values: Sequence[Any], n_lambdas: int) -> Any:
    """Return values of layer sets for each of their cells: one value where there is one layer set."""
    return values[0] if len(values) == 1 else [value for value in values for _ in range(n_lambdas)]


def _first_in_train(dataset: Artifact) -> dict[str, np.ndarray]:
    return {split: np.array(dataset.array(f"{split}.first_in_train")) for split in ("train", "eval")}


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


CELLS = Table(
    name="cells",
    columns=(*GRID_COLUMNS, *(column for kind in KINDS.values() for column in kind.cell_columns), *PROVENANCE_COLUMNS),
    about="One row a cell of the grid.",
    rows_from="orchestrator.results.tables.cells:cells_rows",
)
