"""The cells of a solve stage for the lambdas of a plan, from the stored part of each decomposition."""

from collections.abc import Iterator

import numpy as np

from orchestrator.plan.plan import Plan
from orchestrator.stages.base.cells import Solve
from orchestrator.stages.context.problem import problem_of
from orchestrator.stages.solve.path import LambdaPath, Strengths, follow, read_kept
from orchestrator.store.artifacts import Artifact


def paths_of(plan: Plan, solve: Solve, artifact: Artifact, dataset: Artifact) -> Iterator[LambdaPath]:
    """Yield the results for each lambda, layer set by layer set.

    Args:
        plan: the plan.
        solve: the solve stage.
        artifact: its artifact.
        dataset: the artifact of its examples.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    initial, eval_initial = (np.array(artifact.array(name)) for name in ("initial", "eval_initial"))
    problem = problem_of(solve.stage, dataset, initial, eval_initial)
    strengths = Strengths(plan.lambdas, plan.sweep.spec.grid.lambdas.scale)
    missing = artifact.facts.get("missing_estimates", {})
    for position, trace in enumerate(np.array(artifact.array("trace")).tolist()):
        kept = read_kept(solve.stage, artifact, position, size=problem.size)
        yield follow(kept, trace, problem, strengths, missing)
