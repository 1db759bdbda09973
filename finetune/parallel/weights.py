"""Weights that are sharded over processes, and unsharded again where they are small or trained."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from finetune.parallel.deepspeed_private import ID, LOCAL_PART, SIZE, linear_that_fetches_again


def zero_config(
    dtype: str, *, stage: Literal[0, 3] = 3, offload: Literal["none", "cpu"] = "none", largest: int = 0
) -> dict[str, Any]:
    """Return the configuration of DeepSpeed: no optimizer, every weight sharded.

    Args:
        dtype: precision of the model.
        stage: of ZeRO; 3 shards the weights.
        offload: "cpu" keeps parts that are not in use in the host's memory.
        largest: numbers in the largest module; a quarter of it is fetched ahead of what is at work.
    """
    sharded = {
        "stage3_param_persistence_threshold": 0,
        # A weight is let go at once: with the default, a model of up to 10^9 weights stays unsharded from the forward
        # pass to the backward pass.
        "stage3_max_reuse_distance": 0,
        # Weights fetched ahead of the running layer take little memory compared with the largest module.
        "stage3_max_live_parameters": largest // 4,
        "stage3_prefetch_bucket_size": largest // 4,
        # DeepSpeed would replace torch's linear map for good, also for unsharded models; see `keeping_no_weights`.
        "memory_efficient_linear": False,
    }
    parts = {"offload_param": {"device": "cpu", "pin_memory": torch.cuda.is_available()}} if offload == "cpu" else {}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": stage, **(sharded | parts if stage == 3 else {})},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
    }


@contextmanager
def keeping_no_weights() -> Iterator[None]:
    """Let linear maps fetch their weights again for the backward pass, inside this context; torch would keep them."""
    before = nn.functional.linear
    nn.functional.linear = linear_that_fetches_again()
    try:
        yield
    finally:
        nn.functional.linear = before


@contextmanager
def loaded_sharded(dtype: str) -> Iterator[None]:
    """Let transformers make models of which each process keeps its part of every weight, inside this context."""
    from transformers.integrations import HfDeepSpeedConfig, unset_hf_deepspeed_config

    # transformers keeps only a weak reference to it.
    kept = HfDeepSpeedConfig(zero_config(dtype))
    try:
        yield
    finally:
        del kept
        unset_hf_deepspeed_config()


def is_sharded(parameter: Tensor) -> bool:
    """Tell whether a process has only a part of a parameter."""
    return hasattr(parameter, ID)


def has_sharded(model: nn.Module) -> bool:
    """Tell whether weights of a model are sharded over processes."""
    return any(is_sharded(parameter) for parameter in model.parameters())


@torch.no_grad()
def unsharded(parameter: Tensor) -> Tensor:
    """Return the value of a parameter; where it is sharded, all processes make the call."""
    if not is_sharded(parameter):
        return parameter
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def local_part(parameter: Tensor) -> Tensor:
    """Return this process's part of a parameter; all of it if it is not sharded."""
    part: Tensor = getattr(parameter, LOCAL_PART, parameter)
    return part


def gathered(parameters: Sequence[Tensor]) -> AbstractContextManager[None]:
    """Give this process all of the parameters inside this context; then each keeps its part of the first one's values.

    All processes enter and leave it alike.
    """
    sharded = list({id(parameter): parameter for parameter in parameters if is_sharded(parameter)}.values())
    if not sharded:
        return nullcontext()
    import deepspeed

    together: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(sharded, modifier_rank=0)
    return together


@torch.no_grad()
def unshard(modules: Sequence[nn.Module]) -> None:
    """Give every process all of the modules' own weights, as ordinary parameters; all processes call it alike."""
    for module in modules:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if is_sharded(parameter):
                # one by one: together they might be most of the model
                setattr(module, name, nn.Parameter(unsharded(parameter), requires_grad=False))


def largest_module(model: nn.Module) -> int:
    """Return the largest number of sharded weights that a module holds itself, without those of modules inside it."""
    sizes = [[getattr(weight, SIZE, 0) for weight in module.parameters(recurse=False)] for module in model.modules()]
    return max(map(sum, sizes))


def hide_unsharded_parameters(model: nn.Module) -> None:
    """Turn unsharded parameters (adapters, heads) into plain attributes, because DeepSpeed would shard parameters."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not is_sharded(parameter):
                delattr(module, name)
                setattr(module, name, parameter.detach())
