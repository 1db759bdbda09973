"""What combining trained tasks costs: FLOPs, bytes on disk, memory of a stage `combine`."""

from orchestrator.combinations import SIDES, combinations_of
from orchestrator.plan import Plan
from orchestrator.stage import Stage

_COLUMNS = 9
"""Numbers of a combination: the gap, and loss and three metrics of both models."""


def combine_flops(plan: Plan, stage: Stage) -> float:
    """Return the floating-point operations: a forward of the evaluation examples of both tasks for each weights."""
    p, of, survey = stage.parameters, plan.of(stage), plan.of(stage).survey
    layers = survey.model["n_layers"]
    frozen = layers if p["frozen_layers"] is None else p["frozen_layers"]
    share = 1 - frozen / layers if layers else 1.0
    forwards = len(SIDES) * _cells(stage) * (len(_combinations(stage)) + len(SIDES)) * of.sizes.n_eval
    return float(2.0 * survey.model["n_parameters"] * survey.mean_tokens * share * forwards)


def combine_disk(stage: Stage) -> int:
    """Return the bytes that a stage leaves."""
    return 8 * _COLUMNS * len(SIDES) * _cells(stage) * len(_combinations(stage))


def combine_memory(plan: Plan, stage: Stage) -> int:
    """Return the bytes that a stage takes beside the model: cached states, displacements, outputs."""
    p, sizes, survey = stage.parameters, plan.of(stage).sizes, plan.of(stage).survey
    groups = dict(zip(sizes.groups, sizes.group_parameters, strict=True))
    # Of both models and tasks, and their combination.
    weights = 5 * sum(groups[group] for group in p["tasks"]["a"]["groups"]) * sizes.row_bytes
    cached = survey.mean_tokens * survey.model["hidden_size"] * sizes.row_bytes if p["frozen_layers"] != 0 else 0
    outputs = 2 * (len(_combinations(stage)) + len(SIDES)) * sizes.n_eval * sizes.rows_per_example * 8
    return int(weights + sizes.n_eval * cached + outputs)


def _cells(stage: Stage) -> int:
    return len(stage.parameters["tasks"]["a"]["lambdas"])


def _combinations(stage: Stage) -> list[object]:
    return list(combinations_of(stage.parameters["operations"], stage.parameters["coefficients"]))
