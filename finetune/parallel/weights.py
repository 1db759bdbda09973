"""Weights that are divided among processes: loaded in parts, and made whole where they are small or trained."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn


def zero_config(
    dtype: str, *, stage: Literal[0, 3] = 3, offload: Literal["none", "cpu"] = "none", largest: int = 0
) -> dict[str, Any]:
    """Return the configuration of DeepSpeed: no optimiser, every weight divided.

    Args:
        dtype: precision of the model.
        stage: of ZeRO; 3 divides the weights.
        offload: "cpu" keeps parts that are not in use in the host's memory.
        largest: numbers in the largest module; a quarter of it is fetched ahead of what is at work.
    """
    divided = {
        "stage3_param_persistence_threshold": 0,
        # A weight is let go at once: with the default, a model of up to 10^9 weights stays whole from the forward pass
        # to the backward pass.
        "stage3_max_reuse_distance": 0,
        # Ahead of the layer at work only as much is fetched as is small beside the largest.
        "stage3_max_live_parameters": largest // 4,
        "stage3_prefetch_bucket_size": largest // 4,
        # DeepSpeed would replace torch's linear map for good, also for whole models; see `keeping_no_weights`.
        "memory_efficient_linear": False,
    }
    parts = {"offload_param": {"device": "cpu", "pin_memory": torch.cuda.is_available()}} if offload == "cpu" else {}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": stage, **(divided | parts if stage == 3 else {})},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
    }


@contextmanager
def keeping_no_weights() -> Iterator[None]:
    """Inside, linear maps fetch their weights again for the backward pass; torch's own would keep them until then."""
    from deepspeed.runtime.zero.linear import zero3_linear_wrap

    before = nn.functional.linear
    nn.functional.linear = zero3_linear_wrap
    try:
        yield
    finally:
        nn.functional.linear = before


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


def has_divided(model: nn.Module) -> bool:
    """Tell whether weights of a model are divided among processes."""
    return any(is_divided(parameter) for parameter in model.parameters())


@torch.no_grad()
def whole(parameter: Tensor) -> Tensor:
    """Return the value of a parameter, which all processes ask for alike where it is divided among them."""
    if not is_divided(parameter):
        return parameter
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def part_of(parameter: Tensor) -> Tensor:
    """Return what this process has of a parameter: all of one that is not divided."""
    part: Tensor = getattr(parameter, "ds_tensor", parameter)
    return part


def gathered(parameters: Sequence[Tensor]) -> AbstractContextManager[None]:
    """Inside, this process has all of the parameters; at the end every process keeps its part of the first one's."""
    divided = list({id(parameter): parameter for parameter in parameters if is_divided(parameter)}.values())
    if not divided:
        return nullcontext()
    import deepspeed

    whole: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(divided, modifier_rank=0)
    return whole


@torch.no_grad()
def make_whole(modules: Sequence[nn.Module]) -> None:
    """Give every process all of the modules' own weights, as ordinary parameters; all processes call it alike."""
    for module in modules:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if is_divided(parameter):
                # one by one: together they might be most of the model
                setattr(module, name, nn.Parameter(whole(parameter), requires_grad=False))


def largest_module(model: nn.Module) -> int:
    """Return how many numbers the divided weights of a module have at most, those of the modules inside it apart."""
    sizes = [
        [getattr(weight, "ds_numel", 0) for weight in module.parameters(recurse=False)] for module in model.modules()
    ]
    return max(map(sum, sizes))


def hide_whole_parameters(model: nn.Module) -> None:
    """Make attributes of all parameters that are not divided, which DeepSpeed would divide: adapters and heads."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not is_divided(parameter):
                delattr(module, name)
                setattr(module, name, parameter.detach())
