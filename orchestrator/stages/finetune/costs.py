"""Costs of training: FLOPs and bytes of a stage that trains some cells."""

from orchestrator.stages.finetune import Run
from orchestrator.stages.finetune.memory import by_rows, outputs_bytes, trained_parameters, training_memory
from orchestrator.store.stage import StageCost
from orchestrator.sweep.variant import Variant


def run_cost(run: Run, variant: Variant) -> StageCost:
    """Return what one training run takes: forward and backward of every step, evaluations left out.

    A forward pass takes two operations for each parameter and token, a backward pass to the activations as many, and
    one to the trained weights few (Kaplan et al., arXiv 2001.08361, section 2.1). Layers whose outputs are cached cost
    nothing. A linearization without rows takes a forward and a backward pass for all cells, and products that cost as
    much for each. On disk a run leaves the outputs at every evaluation, and the displacement of each cell.
    """
    sizes, survey = variant.sizes, variant.survey
    displacements = len(run.parameters.cells.lambdas) * trained_parameters(sizes, survey, run) * sizes.row_bytes
    return StageCost(
        flops=_flops(run, variant),
        disk_bytes=outputs_bytes(sizes, run) + displacements,
        memory_bytes=training_memory(sizes, survey, run),
    )


def _flops(run: Run, variant: Variant) -> float:
    p, sizes, survey = run.parameters, variant.sizes, variant.survey
    cells, training, n_train = len(p.cells.lambdas), p.cells.training, p.problem.n_train
    batch = training.batch_size * training.gradient_accumulation_steps
    seen = training.steps * (n_train if training.optimizer == "gradient_descent" else min(batch, n_train))
    if by_rows(run):
        parameters = trained_parameters(sizes, survey, run)
        return float(4.0 * seen * sizes.rows_per_example * parameters * cells)
    layers = survey.model["n_layers"]
    frozen = layers if p.frozen_layers is None else p.frozen_layers
    share = 1 - frozen / layers if layers else 1.0
    passes = cells + (p.model == "linearized")
    return float(4.0 * survey.model["n_parameters"] * survey.mean_tokens * seen * passes * share)
