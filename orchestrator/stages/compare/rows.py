"""Columns of `cells` and rows of the tables about training, from the artifacts of comparisons."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orchestrator.stages.base.cells import Comparison, Solve, cell_ids
from orchestrator.stages.base.constants import solve_constants
from orchestrator.stages.base.tables import Rows
from orchestrator.stages.context.finished import Finished
from orchestrator.store.artifacts import Artifact
from orchestrator.sweep.layer_sets import HEAD

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan

STATUSES = ("finetune_status", "linearized_status")


def training_columns(finished: Finished, solve: Solve, halvings: int) -> dict[str, Any]:
    """Return the columns about training for all cells of a solve stage, layer set by layer set; empty where unfinished.

    Args:
        finished: finished stages of the plan.
        solve: the solve stage.
        halvings: how often batches were halved for its own part; those of training count where they are more.
    """
    shape = (len(solve.layer_sets), len(finished.plan.lambdas))
    statuses: dict[str, npt.NDArray[np.object_]] = {name: np.full(shape, None, dtype=object) for name in STATUSES}
    numbers: dict[str, npt.NDArray[np.float64]] = {}
    halved = np.full(shape, halvings)
    for comparison, artifact in compared_in(finished, solve):
        cells = list(comparison.in_grid)
        place = comparison.layer_set, list(comparison.in_grid.values())
        halved[place] = np.maximum(halved[place], artifact.provenance.get("most_halvings", 0))
        for name in STATUSES:
            statuses[name][place] = [artifact.facts[name][cell] for cell in cells]
        for name in artifact.names():
            if name.startswith("cells."):
                column = numbers.setdefault(name.removeprefix("cells."), np.full(shape, np.nan))
                column[place] = artifact.array(name)[cells]
    return {
        **{name: values.ravel() for name, values in numbers.items()},
        **{name: values.ravel().tolist() for name, values in statuses.items()},
        "halvings": halved.ravel(),
    }


def trajectories_rows(finished: Finished) -> Iterator[Rows]:
    """Yield a row for every cell of a finished comparison, and every evaluation while one of its models trained.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    for solve in finished.filled(Solve):
        for comparison, artifact in compared_in(finished, solve):
            cells = list(comparison.in_grid)
            evaluations = np.array(artifact.array("evaluations"))[cells]
            steps = np.tile(artifact.array("steps")[:, None], len(evaluations))
            prefix = "trajectories."
            by_name = {
                name.removeprefix(prefix): artifact.array(name)[:, cells]
                for name in artifact.names()
                if name.startswith(prefix)
            } | {"step": steps}
            columns = cell_columns(finished.plan, solve, comparison, evaluations) | {
                name: np.concatenate([values[:count, cell] for cell, count in enumerate(evaluations)])
                for name, values in by_name.items()
            }
            yield Rows(columns, len(columns["cell_id"]))


def updates_rows(finished: Finished) -> Iterator[Rows]:
    """Yield a row for every cell of a finished comparison, and every group that was trained.

    Those are the groups of its layer set and, where it is trained outside the kernel, the head.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    names = ("weight_norm", "finetune_update_norm", "linearized_update_norm")
    for solve in finished.filled(Solve):
        for comparison, artifact in compared_in(finished, solve):
            groups = list(solve.layer_sets[comparison.layer_set].groups)
            if comparison.stage.parameters.cells.train_head:
                groups.append(HEAD)
            columns = cell_columns(finished.plan, solve, comparison, len(groups))
            cells = list(comparison.in_grid)
            values = {name: artifact.array(f"updates.{name}")[cells].ravel() for name in names}
            yield Rows(columns | {"group": groups * len(cells)} | values, len(columns["cell_id"]))


def cell_columns(
    plan: "Plan", solve: Solve, comparison: Comparison, rows_per_cell: int | npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Return the columns that say which cell a row is about, for all cells of a comparison that the grid has."""
    layer_set = solve.layer_sets[comparison.layer_set]
    lambdas = [plan.lambdas[position] for position in comparison.in_grid.values()]
    cells = cell_ids(solve, layer_set, lambdas, plan.sweep.spec.grid.lambdas.scale)
    return solve_constants(plan.variants[solve.variant], solve) | {
        "cell_id": np.repeat(cells, rows_per_cell),
        "layer_set": layer_set.name,
        "lambda_given": np.repeat(lambdas, rows_per_cell),
    }


def compared_in(finished: Finished, solve: Solve) -> Iterator[tuple[Comparison, Artifact]]:
    """Yield the comparisons of a solve stage that are finished, with their artifacts."""
    for comparison in solve.comparisons:
        if comparison.stage in finished:
            yield comparison, finished.artifact(comparison.stage)
