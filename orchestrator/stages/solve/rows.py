"""Rows of the tables that solve stages fill: spectra, densities, predictions; and the cells of any lambda."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.stages.base.cells import Solve, cell_ids
from orchestrator.stages.base.constants import solve_constants
from orchestrator.stages.base.tables import Rows
from orchestrator.stages.context.finished import Finished
from orchestrator.stages.context.problem import Problem, problem_of
from orchestrator.stages.solve.columns import DENSITIES
from orchestrator.stages.solve.path import LambdaPath, Strengths, follow, read_kept
from orchestrator.stages.solve.scalars import scalars_of
from orchestrator.store.artifacts import Artifact

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan


def paths_of(plan: "Plan", solve: Solve, artifact: Artifact, dataset: Artifact) -> Iterator[LambdaPath]:
    """Yield the results for each lambda, layer set by layer set.

    Args:
        plan: the plan.
        solve: the solve stage.
        artifact: its artifact.
        dataset: the artifact of its examples.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    problem = _problem(solve, artifact, dataset)
    strengths = Strengths(plan.lambdas, plan.sweep.spec.grid.lambdas.scale)
    missing = artifact.facts.get("missing_estimates", {})
    for position, trace in enumerate(scalars_of(artifact)["trace"].tolist()):
        kept = read_kept(solve.stage, artifact, position, size=problem.size)
        yield follow(kept, trace, problem, strengths, missing)


def problem_in(finished: Finished, solve: Solve, artifact: Artifact) -> Problem:
    """Return the regression problem of a solve stage, given its artifact.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    return _problem(solve, artifact, dataset_of(finished, solve))


def _problem(solve: Solve, artifact: Artifact, dataset: Artifact) -> Problem:
    initial, eval_initial = (np.array(artifact.array(name)) for name in ("initial", "eval_initial"))
    return problem_of(solve.stage, dataset, initial, eval_initial)


def dataset_of(finished: Finished, solve: Solve) -> Artifact:
    """Return the artifact of the examples of a solve stage."""
    (dataset,) = solve.stage.inputs["dataset"]
    return finished.store.open(*dataset)


def distinct(finished: Finished) -> Iterator[tuple[Solve, Artifact]]:
    """Yield each finished solve stage once, with its artifact: those of several learning rates are the same."""
    seen: set[str] = set()
    for solve in finished.filled(Solve):
        if solve.stage.stage_id not in seen:
            seen.add(solve.stage.stage_id)
            yield solve, finished.artifact(solve.stage)


def spectra_rows(finished: Finished) -> Iterator[Rows]:
    """Yield one row for each layer set of a solve stage.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    for solve, artifact in distinct(finished):
        sets, stored = solve.layer_sets, set(artifact.names())
        names = [f"eigenvalues.{position}" for position in range(len(sets))]
        columns = solve_constants(finished.plan.variants[solve.variant], solve) | {
            "layer_set": [layer_set.name for layer_set in sets],
            "groups": [list(layer_set.groups) for layer_set in sets],
            "kernel_size": scalars_of(artifact)["kernel_size"],
            "eigenvalues": [np.array(artifact.array(name)[::-1]) if name in stored else None for name in names],
        }
        yield Rows(columns, len(sets))


def densities_rows(finished: Finished) -> Iterator[Rows]:
    """Yield one row for each layer set of a solve stage whose kernel was not decomposed.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    for solve, artifact in distinct(finished):
        stored = set(artifact.names())
        sets = solve.layer_sets if "density.0" in stored else ()
        iterative = solve.stage.parameters.iterative
        columns: dict[str, Any] = solve_constants(finished.plan.variants[solve.variant], solve) | {
            "layer_set": [layer_set.name for layer_set in sets],
            "groups": [list(layer_set.groups) for layer_set in sets],
            "probe_seed": iterative.probe_seed if iterative else None,
        }
        scalars = scalars_of(artifact)
        for column in DENSITIES.columns:
            if sets and column.name in scalars:
                columns[column.name] = scalars[column.name]
            elif f"{column.name}.0" in stored:
                columns[column.name] = [np.array(artifact.array(f"{column.name}.{i}")) for i in range(len(sets))]
        yield Rows(columns, len(sets))


def predictions_rows(finished: Finished) -> Iterator[Rows]:
    """Yield, for each layer set of a solve stage, a row for every lambda, evaluation example and output.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    plan = finished.plan
    lambdas, scale = plan.lambdas, plan.sweep.spec.grid.lambdas.scale
    for solve in finished.filled(Solve):
        dataset = dataset_of(finished, solve)
        rows = np.array(dataset.array("eval.rows"))
        paths = paths_of(plan, solve, finished.artifact(solve.stage), dataset)
        for layer_set, path in zip(solve.layer_sets, paths, strict=True):
            values = path.predictions
            per_cell = values[0].size
            outputs = per_cell // len(rows)
            columns = solve_constants(plan.variants[solve.variant], solve) | {
                "cell_id": np.repeat(cell_ids(solve, layer_set, lambdas, scale), per_cell),
                "layer_set": layer_set.name,
                "lambda_given": np.repeat(lambdas, per_cell),
                "example": np.tile(np.repeat(rows, outputs), len(lambdas)),
                "output": np.tile(np.arange(outputs), len(rows) * len(lambdas)),
                "prediction": values.ravel(),
                **_variance_columns(path),
            }
            yield Rows(columns, per_cell * len(lambdas))


def _variance_columns(path: LambdaPath) -> dict[str, Any]:
    """Return the variances of the predictions of a path, (L M_eval k,), or None for each where there are none."""
    k = path.predictions.shape[-1]
    found = path.variances or (None, None)
    names = ("predictive_variance", "observation_variance")
    return {
        name: None if of is None else np.repeat(of[..., None], k, axis=-1).ravel()
        for name, of in zip(names, found, strict=True)
    }
