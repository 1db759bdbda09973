"""Costs of training some cells: FLOPs, bytes on disk, and memory, which also decides how a linearization is trained."""

from orchestrator.stages.finetune import Run
from orchestrator.store.stage import StageCost
from orchestrator.sweep.passes import forward
from orchestrator.sweep.sizes import Sizes
from orchestrator.sweep.survey_facts import Survey
from orchestrator.sweep.variant import Variant


def run_cost(run: Run, variant: Variant) -> StageCost:
    """Return what one training run takes: forward and backward of every step, and the outputs at every evaluation.

    A backward pass to the trained weights adds little to one to the activations. Layers whose outputs are cached are
    passed once. A linearization without rows takes a forward and a backward pass for all cells, and products that cost
    as much for each. On disk a run leaves the outputs at every evaluation, and the displacement of each cell.
    """
    sizes, survey, p = variant.sizes, variant.survey, run.parameters
    parameters, cells = trained_parameters(sizes, survey, run), len(p.cells.lambdas)
    memory = training_memory(sizes, survey, run)
    # Of the gradient, its norm, two moments and the step.
    updates = 10.0 * p.cells.training.steps * parameters * cells
    kept = StageCost(
        memory_flops=updates,
        written_bytes=_outputs_bytes(sizes, run) + cells * parameters * sizes.row_bytes,
        memory_bytes=memory,
        device_bytes=memory if variant.sweep.spec.compute.device == "cuda" else 0,
    )
    return kept + (_products(run, variant, parameters) if by_rows(run) else _passes(run, variant))


def _products(run: Run, variant: Variant, parameters: int) -> StageCost:
    """Return the cost of products with the rows: two of a batch in each step, one of all examples an evaluation."""
    sizes, cells = variant.sizes, len(run.parameters.cells.lambdas)
    seen = 2 * _seen(run) + _evaluations(run) * _examples(sizes, run)
    return StageCost(
        memory_flops=2.0 * seen * sizes.rows_per_example * parameters * cells, read_bytes=_rows_bytes(sizes, run) // 2
    )


def _passes(run: Run, variant: Variant) -> StageCost:
    """Return the cost of passes through the layers that are not cached, and of filling the cache."""
    p, layers, cells = run.parameters, variant.n_layers, len(run.parameters.cells.lambdas)
    frozen = layers if p.frozen_layers is None else p.frozen_layers
    share = 1 - frozen / layers if layers else 1.0
    examples, batch = _examples(variant.sizes, run), _batch(run)
    linearized = p.model == "linearized"
    trained = 2 * forward(variant, _seen(run) * (cells + linearized), at_once=batch * cells, share=share)
    evaluated = _evaluations(run) * forward(variant, examples * cells * (1 + linearized), share=share)
    return forward(variant, examples, share=1 - share) + trained + evaluated


def _batch(run: Run) -> int:
    """Return the examples of a step."""
    training, n_train = run.parameters.cells.training, run.parameters.problem.n_train
    batch = training.batch_size * training.gradient_accumulation_steps
    return int(n_train if training.optimizer == "gradient_descent" else min(batch, n_train))


def _seen(run: Run) -> int:
    """Return the examples of all steps."""
    return int(run.parameters.cells.training.steps * _batch(run))


def _evaluations(run: Run) -> int:
    """Return how often outputs are evaluated, before the first step included."""
    training = run.parameters.cells.training
    return int(training.steps // training.eval_steps + 2)


def training_memory(sizes: Sizes, survey: Survey, run: Run) -> int:
    """Return the bytes that a run takes beside the model: cached states or Jacobian rows, weights, outputs."""
    p = run.parameters
    # Displacements with their gradients, two moments, and the weights that were kept.
    weights = 5 * len(p.cells.lambdas) * trained_parameters(sizes, survey, run) * sizes.row_bytes
    held = _rows_bytes(sizes, run) if by_rows(run) else _states_bytes(sizes, survey, run)
    return max(int(weights + held + _outputs_bytes(sizes, run)), _unit_bytes(sizes, run))


def by_rows(run: Run) -> bool:
    """Tell whether a run trains a linearization from the rows that the kernel was made of."""
    return run.parameters.linearization == "rows"


def _outputs_bytes(sizes: Sizes, run: Run) -> int:
    """Return the bytes of the outputs at every evaluation."""
    cells = len(run.parameters.cells.lambdas)
    return int(_evaluations(run) * cells * _examples(sizes, run) * sizes.rows_per_example * 8)


def trained_parameters(sizes: Sizes, survey: Survey, run: Run) -> int:
    """Return the parameters that a run trains, as far as the plan knows: those with a gradient at the start.

    For a head outside the kernel it is an upper bound: encoders may have a dense layer before the last one.
    """
    total = sum(_group_parameters(sizes, run))
    if not run.parameters.cells.train_head:
        return total
    hidden = survey.model.hidden_size
    dense = 0 if survey.model.is_decoder else hidden * (hidden + 1)
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
    return int(2 * run.parameters.cells.n_captured * sizes.rows_per_example * parameters * sizes.row_bytes)


def _states_bytes(sizes: Sizes, survey: Survey, run: Run) -> int:
    """Return the bytes of the hidden states after the frozen layers."""
    if run.parameters.frozen_layers == 0:
        return 0
    return int(_examples(sizes, run) * survey.mean_tokens * survey.model.hidden_size * sizes.row_bytes)


def _examples(sizes: Sizes, run: Run) -> int:
    return int(run.parameters.problem.n_train + sizes.n_eval)


def _group_parameters(sizes: Sizes, run: Run) -> list[int]:
    known = dict(zip(sizes.groups, sizes.group_parameters, strict=True))
    return [known[group] for group in run.parameters.cells.groups]
