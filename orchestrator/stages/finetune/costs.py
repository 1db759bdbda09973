"""Costs of training some cells: FLOPs, bytes on disk, and memory, which also decides how a linearization is trained."""

from orchestrator.stages.finetune import Run
from orchestrator.store.stage import StageCost
from orchestrator.sweep.sizes import Sizes
from orchestrator.sweep.survey import Survey
from orchestrator.sweep.variant import Variant


def run_cost(run: Run, variant: Variant) -> StageCost:
    """Return what one training run takes: forward and backward of every step, evaluations left out.

    A forward pass takes two operations for each parameter and token, a backward pass to the activations as many, and
    one to the trained weights few (Kaplan et al., arXiv 2001.08361, section 2.1). Layers whose outputs are cached cost
    nothing. A linearization without rows takes a forward and a backward pass for all cells, and products that cost as
    much for each. On disk a run leaves the outputs at every evaluation, and the displacement of each cell.
    """
    sizes, survey = variant.sizes, variant.survey
    displacements = len(run.parameters.cells.lambdas) * _trained_parameters(sizes, survey, run) * sizes.row_bytes
    return StageCost(
        flops=_flops(run, variant),
        disk_bytes=_outputs_bytes(sizes, run) + displacements,
        memory_bytes=training_memory(sizes, survey, run),
    )


def _flops(run: Run, variant: Variant) -> float:
    p, sizes, survey = run.parameters, variant.sizes, variant.survey
    cells, training, n_train = len(p.cells.lambdas), p.cells.training, p.problem.n_train
    batch = training.batch_size * training.gradient_accumulation_steps
    seen = training.steps * (n_train if training.optimizer == "gradient_descent" else min(batch, n_train))
    if by_rows(run):
        parameters = _trained_parameters(sizes, survey, run)
        return float(4.0 * seen * sizes.rows_per_example * parameters * cells)
    layers = survey.model["n_layers"]
    frozen = layers if p.frozen_layers is None else p.frozen_layers
    share = 1 - frozen / layers if layers else 1.0
    passes = cells + (p.model == "linearized")
    return float(4.0 * survey.model["n_parameters"] * survey.mean_tokens * seen * passes * share)


def training_memory(sizes: Sizes, survey: Survey, run: Run) -> int:
    """Return the bytes that a run takes beside the model: cached states or Jacobian rows, weights, outputs."""
    p = run.parameters
    # Displacements with their gradients, two moments, and the weights that were kept.
    weights = 5 * len(p.cells.lambdas) * _trained_parameters(sizes, survey, run) * sizes.row_bytes
    held = _rows_bytes(sizes, run) if by_rows(run) else _states_bytes(sizes, survey, run)
    return max(int(weights + held + _outputs_bytes(sizes, run)), _unit_bytes(sizes, run))


def by_rows(run: Run) -> bool:
    """Tell whether a run trains a linearization from the rows that the kernel was made of."""
    return run.parameters.linearization == "rows"


def _outputs_bytes(sizes: Sizes, run: Run) -> int:
    """Return the bytes of the outputs at every evaluation."""
    p = run.parameters
    evaluations = p.cells.training.steps // p.cells.training.eval_steps + 2
    return int(evaluations * len(p.cells.lambdas) * _examples(sizes, run) * sizes.rows_per_example * 8)


def _trained_parameters(sizes: Sizes, survey: Survey, run: Run) -> int:
    """Return the parameters that a run trains, as far as the plan knows: those with a gradient at the start.

    For a head outside the kernel it is an upper bound: encoders may have a dense layer before the last one.
    """
    total = sum(_group_parameters(sizes, run))
    if not run.parameters.cells.train_head:
        return total
    hidden = int(survey.model["hidden_size"])
    dense = 0 if survey.model["is_decoder"] else hidden * (hidden + 1)
    return total + dense + (hidden + 1) * survey.n_outputs


def _rows_bytes(sizes: Sizes, run: Run) -> int:
    """Return the bytes of the Jacobian rows: for a moment by group and put together at the same time."""
    parameters = sum(_group_parameters(sizes, run))
    return 2 * _examples(sizes, run) * sizes.rows_per_example * parameters * sizes.row_bytes


def _unit_bytes(sizes: Sizes, run: Run) -> int:
    """Return the bytes of the rows of the largest group, which are read for trace/M before training."""
    if run.parameters.cells.lambda_scale != "trace":
        return 0
    parameters = max(_group_parameters(sizes, run))
    return int(2 * run.parameters.problem.n_train * sizes.rows_per_example * parameters * sizes.row_bytes)


def _states_bytes(sizes: Sizes, survey: Survey, run: Run) -> int:
    """Return the bytes of the hidden states after the frozen layers."""
    if run.parameters.frozen_layers == 0:
        return 0
    return int(_examples(sizes, run) * survey.mean_tokens * survey.model["hidden_size"] * sizes.row_bytes)


def _examples(sizes: Sizes, run: Run) -> int:
    return int(run.parameters.problem.n_train + sizes.n_eval)


def _group_parameters(sizes: Sizes, run: Run) -> list[int]:
    known = dict(zip(sizes.groups, sizes.group_parameters, strict=True))
    return [known[group] for group in run.parameters.cells.groups]
