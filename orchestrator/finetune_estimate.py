"""What training costs: FLOPs, memory of a worker, bytes on disk of a stage `finetune`."""

from orchestrator.plan import Plan
from orchestrator.stage import Stage
from orchestrator.training_memory import by_rows, outputs_bytes, trained_parameters, training_memory


def finetune_flops(plan: Plan, stage: Stage) -> float:
    """Return the floating-point operations of a stage: forward and backward of every step, looks left out.

    A forward takes two operations for each parameter and token, a backward to the activations as many, and one to the
    trained weights few (Kaplan et al., arXiv 2001.08361, section 2.1). Layers whose outputs are cached cost nothing. A
    linearization without rows takes a forward and a backward for all cells, and products that cost as much for each.
    """
    p, sizes, survey = stage.parameters, plan.of(stage).sizes, plan.of(stage).survey
    cells, training, n_train = len(p["lambdas"]), p["training"], p["problem"]["n_train"]
    batch = training["batch_examples"] * training["accumulation"]
    seen = training["steps"] * (n_train if training["optimiser"] == "gradient_descent" else min(batch, n_train))
    if by_rows(stage):
        parameters = trained_parameters(sizes, survey, stage)
        return float(4.0 * seen * sizes.rows_per_example * parameters * cells)
    layers = survey.model["n_layers"]
    frozen = layers if p["frozen_layers"] is None else p["frozen_layers"]
    share = 1 - frozen / layers if layers else 1.0
    passes = cells + (p["model"] == "linearized")
    return float(4.0 * survey.model["n_parameters"] * survey.mean_tokens * seen * passes * share)


def finetune_memory(plan: Plan, stage: Stage) -> int:
    """Return the bytes that a stage takes beside the model and its activations."""
    variant = plan.of(stage)
    return training_memory(variant.sizes, variant.survey, stage)


def finetune_disk(plan: Plan, stage: Stage) -> int:
    """Return the bytes that a stage leaves: outputs at every look, and the displacement of each cell."""
    variant = plan.of(stage)
    parameters = trained_parameters(variant.sizes, variant.survey, stage)
    weights = len(stage.parameters["lambdas"]) * parameters * variant.sizes.row_bytes
    return outputs_bytes(variant.sizes, stage) + weights
