"""The head: drawn, kept from the checkpoint, or fitted by a probe."""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from finetune.errors import HeadError
from finetune.model.adapter import GroupParts, is_zero
from finetune.model.architecture import final_linear, head_linears
from finetune.model.draws import draw_normal
from finetune.model.loading import LoadedModel
from finetune.settings import HeadSettings
from ntk_dist.jacobian.tracked import TrackedLinear

_OTHER_HEAD = "use a random or a ridge head, or a checkpoint that was fine-tuned on this task"

_NOT_OF_TEXTS = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
"""Ends of the names of classes whose heads have the names and shapes of a text classifier's in some architectures."""


def prepare_head(
    loaded: LoadedModel,
    settings: HeadSettings,
    *,
    n_outputs: int,
    seed: int,
    weights: Mapping[str, NDArray[np.floating]] | None,
) -> list[str]:
    """Give the classifier its head, in place, and draw what the checkpoint lacks.

    Returns:
        Names of the parameters that were drawn.

    Raises:
        HeadError: a pretrained head that is missing or has another size, or probe weights of another shape.
    """
    model = loaded.model
    heads = head_linears(model)
    final_name, final = final_linear(model, n_outputs)
    if settings.kind == "pretrained":
        check_pretrained_head(model, loaded.missing, n_outputs=n_outputs)
    drawn = set(draw_missing(loaded, seed))
    if settings.kind != "pretrained":
        for name, module in heads.items():
            _draw(model, module, name, seed)
            drawn.add(f"{name}.weight")
    if weights is not None:
        _set_weights(final, weights)
        drawn -= {f"{final_name}.weight", f"{final_name}.bias"}
    return sorted(drawn)


def draw_missing(loaded: LoadedModel, seed: int) -> list[str]:
    """Draw the matrices that the checkpoint lacks by the rule for a random head; returns their names.

    Norms start at one and biases at zero without being drawn.
    """
    names = []
    for name in sorted(loaded.missing):
        path, _, kind = name.rpartition(".")
        module = loaded.model.get_submodule(path)
        if kind == "weight" and isinstance(module, nn.Linear | Conv1D | nn.Embedding):
            _draw(loaded.model, module, path, seed)
        names.append(name)
    return names


def head_parts(model: PreTrainedModel, n_outputs: int) -> GroupParts:
    """Every linear module of the head; those before an all-zero last one have no gradient."""
    final_name, final = final_linear(model, n_outputs)
    dead = is_zero(final)
    modules = head_linears(model).items()
    linears = [TrackedLinear(module, name, bias=module.bias is not None) for name, module in modules]
    zero = [linear.name for linear in linears if dead and linear.name != final_name]
    return GroupParts([linear for linear in linears if linear.name not in zero], zero, linears)


def check_pretrained_head(model: PreTrainedModel, missing: Collection[str], *, n_outputs: int) -> None:
    """Check that a checkpoint has the head of a classifier of texts, and all that stands before it.

    Args:
        model: with or without weights.
        missing: names of the parameters that the checkpoint does not give.
        n_outputs: outputs of the head.

    Raises:
        HeadError: it has none, one with another number of outputs, one for tokens, or one that was trained without a
            parameter that would be drawn.
    """
    for name in head_linears(model):
        if f"{name}.weight" in missing:
            raise HeadError(f"the checkpoint has no {name} with {n_outputs} outputs; {_OTHER_HEAD}")
    made = tuple(getattr(model.config, "architectures", None) or ())
    if made and all(name.endswith(_NOT_OF_TEXTS) for name in made):
        raise HeadError(f"the checkpoint is one of {made[0]}, whose head does not classify texts; {_OTHER_HEAD}")
    lacking = [name for name, _ in model.named_parameters() if name in missing]
    if lacking:
        raise HeadError(
            f"the checkpoint has a head, but no {lacking[0]}, so that its head was trained without it (for tokens?); "
            f"{_OTHER_HEAD}"
        )


@torch.no_grad()
def _draw(model: PreTrainedModel, module: nn.Module, path: str, seed: int) -> None:
    deviation = getattr(model.config.get_text_config(), "initializer_range", None) or 0.02
    draw_normal(module.get_parameter("weight"), seed, f"{path}.weight", deviation=deviation)
    for name, parameter in module.named_parameters(recurse=False):
        if name == "bias":
            parameter.zero_()


@torch.no_grad()
def _set_weights(final: nn.Linear, weights: Mapping[str, NDArray[np.floating]]) -> None:
    weight, bias = (torch.as_tensor(weights[name]).to(final.weight) for name in ("weight", "bias"))
    if weight.shape != final.weight.shape or bias.shape != (final.out_features,):
        raise HeadError(
            f"the head takes weights {tuple(final.weight.shape)} and biases ({final.out_features},), not "
            f"{tuple(weight.shape)} and {tuple(bias.shape)}; fit the probe with this model and task"
        )
    final.weight.copy_(weight)
    # replaced, not written to: the heads of decoders have no bias, but a probe does
    final.bias = nn.Parameter(bias, requires_grad=False)
