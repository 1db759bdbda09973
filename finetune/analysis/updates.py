"""Sizes of the changes that training makes to the weights, group by group."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.model.scorer import Scorer
from finetune.parallel.weights import unsharded
from finetune.training.trainable import Displacement
from ntk_dist.jacobian.tracked import TrackedLinear


@dataclass(frozen=True)
class GroupUpdate:
    """Change of one group's weights in training.

    Attributes:
        group: its name.
        update_norm: |W - W_0|, Frobenius, over the weights of the modules that the group adapts, and their biases where
            those are trained; for LoRA W is the module's own weight plus alpha / r times B A.
        weight_norm: |W_0|, of the pretrained weights.
    """

    group: str
    update_norm: float
    weight_norm: float


@torch.no_grad()
def group_updates(scorer: Scorer, displacement: Displacement, groups: list[str]) -> list[GroupUpdate]:
    """Return how much a displacement of the parameters of `groups` changes the weights that they adapt.

    Parameters without a displacement are where they were, as LoRA's A in a linearized model. All
    processes of a sharded model call it alike.
    """
    updates = []
    for group in groups:
        pairs = list(_changes(scorer, scorer.trained[group], displacement))
        change = sum(float(torch.sum(changed.double() ** 2)) for changed, _ in pairs)
        before = sum(float(torch.sum(weight.double() ** 2)) for _, weight in pairs)
        updates.append(GroupUpdate(group, change**0.5, before**0.5))
    return updates


def _changes(scorer: Scorer, linears: list[TrackedLinear], displacement: Displacement) -> list[tuple[Tensor, Tensor]]:
    """Return pairs (change, pretrained value) of the weights that some modules adapt."""
    by_name = {linear.name: linear for linear in linears}
    changes = []
    for name, linear in by_name.items():
        if name.endswith(".lora_A"):
            changes.append(_lora_change(scorer, name.removesuffix(".lora_A"), by_name, displacement))
        elif not name.endswith(".lora_B"):
            for part, parameter in linear.named_parameters():
                moved = displacement.get(f"{name}.{part}")
                changes.append(
                    (torch.zeros_like(parameter) if moved is None else moved.to(parameter.device), parameter)
                )
    return changes


def _lora_change(
    scorer: Scorer, path: str, linears: Mapping[str, TrackedLinear], displacement: Displacement
) -> tuple[Tensor, Tensor]:
    module = scorer.model.get_submodule(path)
    (scaling,) = module.scaling.values()
    a, b = (linears[f"{path}.{name}"].module.weight for name in ("lora_A", "lora_B"))
    moved_a, moved_b = (displacement.get(f"{path}.{name}.weight") for name in ("lora_A", "lora_B"))
    new_a, new_b = (old if moved is None else old + moved.to(old.device) for old, moved in ((a, moved_a), (b, moved_b)))
    return scaling * (new_b @ new_a - b @ a), unsharded(module.base_layer.weight)
