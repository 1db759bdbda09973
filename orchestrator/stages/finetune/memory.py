"""Memory of a stage `finetune`, which also decides how a linearization is trained."""

from orchestrator.store.stage import Stage
from orchestrator.sweep.sizes import Sizes
from orchestrator.sweep.survey import Survey


def training_memory(sizes: Sizes, survey: Survey, stage: Stage) -> int:
    """Return the bytes that a stage needs beside the model: cached states or Jacobian rows, weights, outputs."""
    p = stage.parameters
    # Displacements with their gradients, two moments, and the weights that were kept.
    weights = 5 * len(p["lambdas"]) * trained_parameters(sizes, survey, stage) * sizes.row_bytes
    held = _rows_bytes(sizes, stage) if by_rows(stage) else _states_bytes(sizes, survey, stage)
    return max(int(weights + held + outputs_bytes(sizes, stage)), _unit_bytes(sizes, stage))


def by_rows(stage: Stage) -> bool:
    """Tell whether a stage trains a linearization from the Jacobian rows of the kernel."""
    return bool(stage.parameters["linearization"] == "rows")


def outputs_bytes(sizes: Sizes, stage: Stage) -> int:
    """Return the bytes of the outputs at every evaluation during training."""
    p = stage.parameters
    looks = p["training"]["steps"] // p["training"]["record_every"] + 2
    return int(looks * len(p["lambdas"]) * _examples(sizes, stage) * sizes.rows_per_example * 8)


def trained_parameters(sizes: Sizes, survey: Survey, stage: Stage) -> int:
    """Return the parameters that a stage trains, as far as the plan knows: those with a gradient at the start.

    For a head outside the kernel it is an upper bound: encoders may have a dense layer before the last one.
    """
    total = sum(_group_parameters(sizes, stage))
    if not stage.parameters["train_head"]:
        return total
    hidden = int(survey.model["hidden_size"])
    dense = 0 if survey.model["is_decoder"] else hidden * (hidden + 1)
    return total + dense + (hidden + 1) * survey.n_outputs


def _rows_bytes(sizes: Sizes, stage: Stage) -> int:
    """Return the bytes of the Jacobian rows, which are held group by group and joined at the same time."""
    parameters = sum(_group_parameters(sizes, stage))
    return 2 * _examples(sizes, stage) * sizes.rows_per_example * parameters * sizes.row_bytes


def _unit_bytes(sizes: Sizes, stage: Stage) -> int:
    """Return the bytes of the rows of the largest group, which are read for trace/M before training begins."""
    if stage.parameters["lambda_scale"] != "trace":
        return 0
    parameters = max(_group_parameters(sizes, stage))
    return int(2 * stage.parameters["problem"]["n_train"] * sizes.rows_per_example * parameters * sizes.row_bytes)


def _states_bytes(sizes: Sizes, survey: Survey, stage: Stage) -> int:
    """Return the bytes of the hidden states after the frozen layers."""
    if stage.parameters["frozen_layers"] == 0:
        return 0
    return int(_examples(sizes, stage) * survey.mean_tokens * survey.model["hidden_size"] * sizes.row_bytes)


def _examples(sizes: Sizes, stage: Stage) -> int:
    return int(stage.parameters["problem"]["n_train"] + sizes.n_eval)


def _group_parameters(sizes: Sizes, stage: Stage) -> list[int]:
    known = dict(zip(sizes.groups, sizes.group_parameters, strict=True))
    return [known[group] for group in stage.parameters["groups"]]
