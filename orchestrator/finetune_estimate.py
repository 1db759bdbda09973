"""What training costs: FLOPs, memory of a worker, bytes on disk of a stage `finetune`."""

from orchestrator.plan import Plan
from orchestrator.stage import Stage


def finetune_flops(plan: Plan, stage: Stage) -> float:
    """Return the floating-point operations of a stage: forward and backward of every step, looks left out.

    A forward takes two operations for each parameter and token, a backward to the activations as many, and one to the
    trained weights few (Kaplan et al., arXiv 2001.08361, section 2.1). Layers whose outputs are cached cost nothing.
    """
    p, sizes, survey = stage.parameters, plan.of(stage).sizes, plan.of(stage).survey
    cells, training, n_train = len(p["lambdas"]), p["training"], p["problem"]["n_train"]
    batch = training["batch_examples"] * training["accumulation"]
    seen = training["steps"] * (n_train if training["optimiser"] == "gradient_descent" else min(batch, n_train))
    if p["model"] == "linearized":
        return float(4.0 * seen * sizes.rows_per_example * _parameters(plan, stage) * cells)
    layers = survey.model["n_layers"]
    frozen = layers if p["frozen_layers"] is None else p["frozen_layers"]
    share = 1 - frozen / layers if layers else 1.0
    return float(4.0 * survey.model["n_parameters"] * survey.mean_tokens * seen * cells * share)


def finetune_memory(plan: Plan, stage: Stage) -> int:
    """Return the bytes that a stage takes beside the model: cached states or Jacobian rows, weights, outputs."""
    p, sizes, survey = stage.parameters, plan.of(stage).sizes, plan.of(stage).survey
    examples = p["problem"]["n_train"] + sizes.n_eval
    # Displacements with their gradients, two moments, and the weights that were kept.
    weights = 5 * len(p["lambdas"]) * _parameters(plan, stage) * sizes.row_bytes
    if p["model"] == "linearized":
        # The rows group by group and put together, for a moment at the same time.
        held = 2 * examples * sizes.rows_per_example * _parameters(plan, stage) * sizes.row_bytes
    else:
        cached = p["frozen_layers"] != 0
        held = int(examples * survey.mean_tokens * survey.model["hidden_size"] * sizes.row_bytes) if cached else 0
    return int(weights + held + _outputs_bytes(plan, stage))


def finetune_disk(plan: Plan, stage: Stage) -> int:
    """Return the bytes that a stage leaves: outputs at every look, and the displacement of each cell."""
    weights = len(stage.parameters["lambdas"]) * _parameters(plan, stage) * plan.of(stage).sizes.row_bytes
    return _outputs_bytes(plan, stage) + weights


def _outputs_bytes(plan: Plan, stage: Stage) -> int:
    p = stage.parameters
    looks = p["training"]["steps"] // p["training"]["record_every"] + 2
    examples = p["problem"]["n_train"] + plan.of(stage).sizes.n_eval
    return int(looks * len(p["lambdas"]) * examples * plan.of(stage).sizes.rows_per_example * 8)


def _parameters(plan: Plan, stage: Stage) -> int:
    """Return the parameters of the groups of a stage, as far as the plan knows: those with a gradient at the start."""
    sizes = plan.of(stage).sizes
    known = dict(zip(sizes.groups, sizes.group_parameters, strict=True))
    return sum(known[group] for group in stage.parameters["groups"])
