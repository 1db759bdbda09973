"""Memory of a training run, which also decides how a linearization is trained."""

from orchestrator.stages.finetune import Run
from orchestrator.sweep.sizes import Sizes
from orchestrator.sweep.survey import Survey


def training_memory(sizes: Sizes, survey: Survey, run: Run) -> int:
    """Return the bytes that a run takes beside the model: cached states or Jacobian rows, weights, outputs."""
    p = run.parameters
    # Displacements with their gradients, two moments, and the weights that were kept.
    weights = 5 * len(p.cells.lambdas) * trained_parameters(sizes, survey, run) * sizes.row_bytes
    held = _rows_bytes(sizes, run) if by_rows(run) else _states_bytes(sizes, survey, run)
    return max(int(weights + held + outputs_bytes(sizes, run)), _unit_bytes(sizes, run))


def by_rows(run: Run) -> bool:
    """Tell whether a run trains a linearization from the rows that the kernel was made of."""
    return run.parameters.linearization == "rows"


def outputs_bytes(sizes: Sizes, run: Run) -> int:
    """Return the bytes of the outputs at every evaluation."""
    p = run.parameters
    evaluations = p.cells.training.steps // p.cells.training.eval_steps + 2
    return int(evaluations * len(p.cells.lambdas) * _examples(sizes, run) * sizes.rows_per_example * 8)


def trained_parameters(sizes: Sizes, survey: Survey, run: Run) -> int:
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
