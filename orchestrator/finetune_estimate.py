"""What training costs: FLOPs, memory of a worker, bytes on disk of a stage that trains."""

from orchestrator.plan import Plan
from orchestrator.side_by_side import runs_of
from orchestrator.sizes import Sizes
from orchestrator.stage import Stage
from orchestrator.survey import Survey
from orchestrator.training_memory import by_rows, outputs_bytes, trained_parameters, training_memory


def finetune_flops(plan: Plan, stage: Stage) -> float:
    """Return the floating-point operations of a stage: forward and backward of every step, looks left out.

    A forward takes two operations for each parameter and token, a backward to the activations as many, and one to the
    trained weights few (Kaplan et al., arXiv 2001.08361, section 2.1). Layers whose outputs are cached cost nothing. A
    linearization without rows takes a forward and a backward for all cells, and products that cost as much for each.
    """
    variant = plan.of(stage)
    return sum(_run_flops(variant.sizes, variant.survey, run) for run in runs_of(stage))


def finetune_memory(plan: Plan, stage: Stage) -> int:
    """Return the bytes that a stage takes beside the model and its activations."""
    variant = plan.of(stage)
    return sum(training_memory(variant.sizes, variant.survey, run) for run in runs_of(stage))


def finetune_disk(plan: Plan, stage: Stage) -> int:
    """Return the bytes that a stage leaves: outputs at every look, and the displacement of each cell."""
    variant = plan.of(stage)
    parameters = trained_parameters(variant.sizes, variant.survey, runs_of(stage)[0])
    cells = sum(len(run.parameters["lambdas"]) for run in runs_of(stage))
    outputs = sum(outputs_bytes(variant.sizes, run) for run in runs_of(stage))
    return outputs + cells * parameters * variant.sizes.row_bytes


def _run_flops(sizes: Sizes, survey: Survey, run: Stage) -> float:
    p = run.parameters
    cells, training, n_train = len(p["lambdas"]), p["training"], p["problem"]["n_train"]
    batch = training["batch_examples"] * training["accumulation"]
    seen = training["steps"] * (n_train if training["optimiser"] == "gradient_descent" else min(batch, n_train))
    if by_rows(run):
        parameters = trained_parameters(sizes, survey, run)
        return float(4.0 * seen * sizes.rows_per_example * parameters * cells)
    layers = survey.model["n_layers"]
    frozen = layers if p["frozen_layers"] is None else p["frozen_layers"]
    share = 1 - frozen / layers if layers else 1.0
    passes = cells + (p["model"] == "linearized")
    return float(4.0 * survey.model["n_parameters"] * survey.mean_tokens * seen * passes * share)
