"""Rows of the tables `contributions` and `flow`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ntk_dist.solvers.contributions import Contributions, KeptContributions
from orchestrator.stages.base.cells import Solve, cell_ids
from orchestrator.stages.base.constants import solve_constants
from orchestrator.stages.base.tables import Rows
from orchestrator.stages.context.finished import Finished
from orchestrator.stages.context.problem import Problem
from orchestrator.stages.solve.flow import flow_moments, flow_strengths, step_sizes, steps
from orchestrator.stages.solve.flow_memory import TRAINED_BY
from orchestrator.stages.solve.further_columns import REMAINDERS
from orchestrator.stages.solve.path import Strengths, for_solving, read_kept
from orchestrator.stages.solve.rows import distinct, problem_in
from orchestrator.stages.solve.scalars import scalars_of
from orchestrator.store.artifacts import Artifact
from orchestrator.sweep.blocks import groups_of


def contributions_rows(finished: Finished) -> Iterator[Rows]:
    """Yield, for each layer set of a solve stage, a row for every lambda and block.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    plan = finished.plan
    lambdas, scale = plan.lambdas, plan.sweep.spec.grid.lambdas.scale
    for solve in finished.filled(Solve):
        artifact = finished.artifact(solve.stage)
        problem, traces = problem_in(finished, solve, artifact), scalars_of(artifact)["trace"].tolist()
        strengths, remainders = Strengths(lambdas, scale), _remainders(finished, solve)
        for position, (layer_set, trace) in enumerate(zip(solve.layer_sets, traces, strict=True)):
            blocks = [list(groups_of(name)) for name in artifact.facts["contributing"][position]]
            shares = _contributions(solve, artifact, position, problem, strengths.of(trace, problem.size))
            columns = solve_constants(plan.variants[solve.variant], solve) | {
                "cell_id": np.repeat(cell_ids(solve, layer_set, lambdas, scale), len(blocks)),
                "layer_set": layer_set.name,
                "lambda_given": np.repeat(lambdas, len(blocks)),
                "groups": blocks * len(lambdas),
                "contribution": shares.moved.ravel(),
                "squared_distance_share": shares.distance.ravel(),
                **{name: np.repeat(values[position], len(blocks)) for name, values in remainders.items()},
            }
            yield Rows(columns, len(blocks) * len(lambdas))


def _contributions(
    solve: Solve, artifact: Artifact, position: int, problem: Problem, lambdas: npt.NDArray[np.float64]
) -> Contributions:
    kept = read_kept(solve.stage, artifact, position, size=problem.size)
    names = [name for name in artifact.names() if name in {f"{each}.{position}" for each in _KEPT}]
    arrays = {name.partition(".")[0]: array for name, array in artifact.arrays(names).items()}
    return KeptContributions.from_arrays(arrays).along(kept.ridge_path(problem.residual, for_solving(lambdas)), kept)


_KEPT = ("contribution_forms", "contribution_products")


def _remainders(finished: Finished, solve: Solve) -> dict[str, npt.NDArray[np.float64]]:
    """Return the columns of trained cells, (layer sets, lambdas) each; empty where nothing is trained yet."""
    from orchestrator.stages.compare.rows import training_columns

    shape = len(solve.layer_sets), len(finished.plan.lambdas)
    found = training_columns(finished, solve, 0)
    return {each.name: found[each.name].reshape(shape) for each in REMAINDERS if each.name in found}


def flow_rows(finished: Finished) -> Iterator[Rows]:
    """Yield, for each layer set of a solve stage, a row for every way of training, lambda and time.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    for solve, artifact in distinct(finished):
        flow = solve.stage.parameters.flow
        if flow is None:
            raise AssertionError("the plan asks for no trajectories")
        scalars = scalars_of(artifact)
        for position, layer_set in enumerate(solve.layer_sets):
            sigma_max = max(0.0, float(scalars["sigma_max"][position]))
            size, trace = int(scalars["kernel_size"][position]), float(scalars["trace"][position])
            values = artifact.array(f"flow.{position}")
            grid = np.broadcast_to(flow_strengths(flow, trace, size)[:, None], values.shape[1:])
            columns: dict[str, Any] = solve_constants(finished.plan.variants[solve.variant], solve) | {
                "layer_set": layer_set.name,
                "trained_by": np.repeat(TRAINED_BY, grid[0].size),
                "lambda": grid.ravel(),
                "lambda_given": np.broadcast_to(np.array([0.0, *flow.lambdas])[:, None], grid.shape).ravel(),
                "time_given": np.broadcast_to(flow.times, grid.shape).ravel(),
                **{name: each.ravel() for name, each in zip(artifact.facts["flow"][position], values, strict=True)},
            }
            if sigma_max:
                times, descent = flow_moments(flow, sigma_max), TRAINED_BY.index("descent")
                sizes, counts = np.full(grid.shape, np.nan), np.full(grid.shape, np.nan)
                sizes[descent] = step_sizes(sigma_max, grid[descent])
                counts[descent] = steps(times, sizes[descent])
                columns |= {"time": np.broadcast_to(times, grid.shape).ravel()}
                columns |= {"step_size": sizes.ravel(), "steps": counts.ravel()}
            yield Rows(columns, grid.size)
