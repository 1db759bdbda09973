"""Weights that are divided among processes: loaded in parts, and made whole where they are small or trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def zero_config(dtype: str) -> dict[str, Any]:
    """Return the configuration of DeepSpeed: ZeRO stage 3, without optimiser, every weight divided."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
    }


@contextmanager
def loaded_in_parts(dtype: str) -> Iterator[None]:
    """Inside, transformers makes and loads models of which each process keeps its part of every weight."""
    from transformers.integrations import HfDeepSpeedConfig, unset_hf_deepspeed_config

    # transformers has a weak reference to it.
    kept = HfDeepSpeedConfig(zero_config(dtype))
    try:
        yield
    finally:
        del kept
        unset_hf_deepspeed_config()


def is_divided(parameter: Tensor) -> bool:
    """Tell whether a process has only a part of a parameter."""
    return hasattr(parameter, "ds_id")


def part_of(parameter: Tensor) -> Tensor:
    """Return what this process has of a parameter: all of one that is not divided."""
    part: Tensor = getattr(parameter, "ds_tensor", parameter)
    return part


@torch.no_grad()
def make_whole(modules: Sequence[nn.Module]) -> None:
    """Give every process all of the modules' own weights, as ordinary parameters; all processes call it alike."""
    import deepspeed

    divided = [
        (module, name, parameter)
        for module in modules
        for name, parameter in module.named_parameters(recurse=False)
        if is_divided(parameter)
    ]
    with deepspeed.zero.GatheredParameters([parameter for _, _, parameter in divided]):
        values = [parameter.detach().clone() for _, _, parameter in divided]
    for (module, name, _), value in zip(divided, values, strict=True):
        setattr(module, name, nn.Parameter(value, requires_grad=False))


def hide_whole_parameters(model: nn.Module) -> None:
    """Make attributes of all parameters that are not divided, which DeepSpeed would divide: adapters and heads."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not is_divided(parameter):
                delattr(module, name)
                setattr(module, name, parameter.detach())
