"""LoRA matrices or dense weights as groups of tracked modules, without parameters whose gradient is always zero."""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from finetune.errors import TargetError
from finetune.model.architecture import Target
from finetune.model.draws import draw_fan_in
from finetune.settings import AdapterSettings
from ntk_dist.jacobian.branches import Branch
from ntk_dist.jacobian.tracked import TrackedLinear

_ADAPTER = "default"


@dataclass(frozen=True, eq=False)
class GroupParts:
    """The parameters of one group.

    Attributes:
        tracked: modules whose gradient can be other than zero at the pretrained point.
        zero: names of the parts whose gradient is zero there whatever the input, and which are skipped.
        trained: all modules of the group: away from that point each of them has a gradient.
    """

    tracked: list[TrackedLinear]
    zero: list[str]
    trained: list[TrackedLinear]


def insert_lora(model: PreTrainedModel, settings: AdapterSettings, targets: Sequence[Target], seed: int) -> None:
    """Adapt the target modules, in place; the drawn values depend on the seed and the module's path alone."""
    # loaded only where weights are adapted: it takes as long as everything that a plan needs
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules=[f"model.{target.path}" for target in targets],
    )
    # peft draws from the global generator, and says that it adapts to Conv1D's transposed weights
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # inside another module peft does not know the architecture: of some it takes targets for experts, which had
        # their names in old checkpoints, and adapts other parameters
        inject_adapter_in_model(config, nn.ModuleDict({"model": model}))
    for target in targets:
        a, b = lora_pair(model, target)
        draw_fan_in(a.weight, seed, f"{target.path}.lora_A")
        if settings.initialization == "random":
            draw_fan_in(b.weight, seed, f"{target.path}.lora_B")
    model.requires_grad_(False).eval()


def lora_pair(model: PreTrainedModel, target: Target) -> tuple[nn.Linear, nn.Linear]:
    """LoRA's A and B at an adapted module."""
    module = model.get_submodule(target.path)
    return module.lora_A[_ADAPTER], module.lora_B[_ADAPTER]


def lora_weights(model: PreTrainedModel) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return copies of LoRA's A (r, d_in) and B (d_out, r) on the CPU, by the path of the adapted module."""
    return {
        path: (
            module.lora_A[_ADAPTER].weight.detach().cpu().clone(),
            module.lora_B[_ADAPTER].weight.detach().cpu().clone(),
        )
        for path, module in model.named_modules()
        if hasattr(module, "lora_A") and _ADAPTER in module.lora_A
    }


def lora_parts(model: PreTrainedModel, target: Target) -> GroupParts:
    """A and B of one module: the gradient for A is zero where B is zero, and the other way round."""
    a, b = lora_pair(model, target)
    linears = {
        "lora_A": TrackedLinear(a, f"{target.path}.lora_A", adapter=True),
        "lora_B": TrackedLinear(b, f"{target.path}.lora_B", adapter=True, branch=_branch(model, target)),
    }
    zero = ["lora_A"] * is_zero(b) + ["lora_B"] * is_zero(a)
    tracked = [linear for name, linear in linears.items() if name not in zero]
    return GroupParts(tracked, zero, list(linears.values()))


def _branch(model: PreTrainedModel, target: Target) -> Branch | None:
    """Return the branch of an adapted module; None where peft has a layer of another kind, which is run as it is."""
    from peft.tuners.lora import Linear

    module: Any = model.get_submodule(target.path)
    is_plain = type(module).forward is Linear.forward
    if not is_plain or module.lora_variant or module.merged or module.disable_adapters:
        return None
    a, b = lora_pair(model, target)
    if any(name == "bias" for linear in (a, b) for name, _ in linear.named_parameters()):
        return None
    return Branch(module, module.base_layer, a, b, float(module.scaling[_ADAPTER]))


def computed_weights(module: nn.Module) -> list[str]:
    """Return which of a linear module's weight and bias are computed from other tensors instead of being parameters."""
    return [
        name
        for name in ("weight", "bias")
        if getattr(module, name, None) is not None and name not in module._parameters
    ]


def dense_parts(target: Target) -> GroupParts:
    """The module's own weight and bias.

    Raises:
        TargetError: one of them is no parameter but computed from others, as by weight or spectral normalization.
    """
    if computed := computed_weights(target.module):
        raise TargetError(
            f"the {computed[0]} of {target.path} is no parameter: it is computed from others before each pass (weight "
            "normalization, spectral normalization or another parametrization); name other target_modules, or adapt "
            "them with adapter.kind: lora"
        )
    linears = [TrackedLinear(target.module, target.path, bias=target.module.bias is not None)]
    return GroupParts(linears, [], linears)


def without_gradient(parts: GroupParts) -> GroupParts:
    """Return the same group without tracked modules, for groups that cannot change the outputs."""
    names = [linear.name.rpartition(".")[2] for linear in parts.tracked]
    return GroupParts([], sorted({*parts.zero, *names}), parts.trained)


def is_zero(module: nn.Linear) -> bool:
    """Tell whether every weight is zero."""
    return not bool(module.weight.any())


def check_group_names(wanted: Collection[str], existing: Collection[str]) -> None:
    """Check that every wanted group exists.

    Raises:
        TargetError: one does not; lists those that do.
    """
    for name in wanted:
        if name not in existing:
            raise TargetError(f"there is no group {name!r}; the groups are: {', '.join(existing)}")
