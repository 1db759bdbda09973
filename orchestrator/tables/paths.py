"""The cells of a solve stage, for the lambdas of a plan: from what its artifact keeps of each decomposition."""

from collections.abc import Iterator

import numpy as np

from orchestrator.plan import Plan
from orchestrator.plan_parts import Solve
from orchestrator.stages.problem import problem_of
from orchestrator.stages.solve import is_iterative
from orchestrator.stages.solve.path import LambdaPath, Strengths, follow, read_kept
from orchestrator.store.artifacts import Artifact


def paths_of(plan: Plan, solve: Solve, artifact: Artifact, dataset: Artifact) -> Iterator[LambdaPath]:
    """Yield what each lambda gives, layer set by layer set.

    Args:
        plan: the plan.
        solve: the solve stage.
        artifact: its artifact.
        dataset: the artifact of its examples.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    if is_iterative(solve.stage):
        yield from _stored_paths(solve, artifact)
        return
    initial, eval_initial = (np.array(artifact.array(name)) for name in ("initial", "eval_initial"))
    problem = problem_of(solve.stage, dataset, initial, eval_initial)
    strengths = Strengths(plan.lambdas, plan.sweep.spec.grid.lambdas.scale)
    missing = artifact.facts.get("missing_estimates", {})
    primal = solve.stage.parameters["method"] == "primal"
    for position, trace in enumerate(np.array(artifact.array("trace")).tolist()):
        kept = read_kept(artifact, position, primal=primal, size=problem.size)
        yield follow(kept, trace, problem, strengths, missing)


def _stored_paths(solve: Solve, artifact: Artifact) -> Iterator[LambdaPath]:
    """Yield the paths of kernels that were not decomposed, whose lambdas are the stage's own."""
    predicted = solve.stage.parameters["predictions"]
    columns = {name: np.array(artifact.array(name)) for name in artifact.names() if "." not in name}
    for position in range(len(solve.layer_sets)):
        found = {name: values[position] for name, values in columns.items() if values.ndim == 2}
        predictions = np.array(artifact.array(f"predictions.{position}")) if predicted else np.empty(0)
        yield LambdaPath(found, predictions)
