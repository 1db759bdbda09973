"""The names of DeepSpeed that its documentation does not promise: all that this package uses of them.

They were looked at in `LOOKED_AT`, the version that is pinned. Another version may lack one: then `check_names` says
which, before a process group begins. DeepSpeed is loaded by the functions, not with this module.
"""

import importlib
import importlib.metadata
from typing import Any

from torch import nn

from finetune.errors import ProcessGroupError

LOOKED_AT = "0.19.8"
"""The version of DeepSpeed in which these names were looked at."""

NAMES = {
    "deepspeed.comm.torch": ("build_shm_op",),
    "deepspeed.runtime.zero.linear": ("zero3_linear_wrap",),
    "deepspeed.runtime.zero.parameter_offload": ("FWD_MODULE_STACK",),
    "deepspeed.runtime.zero.partition_parameters": ("Init._convert_to_deepspeed_param",),
    "deepspeed.runtime.zero.partitioned_param_coordinator": ("PartitionedParameterCoordinator",),
}
"""By module the names that are taken from it."""

ID, LOCAL_PART, SIZE, DIVIDE = "ds_id", "ds_tensor", "ds_numel", "partition"
"""Attributes of a sharded parameter: its number, this process's part, the numbers it has in all, and what shards it."""

BACKWARD_COUNTS = ("applied_pre_backward_ref_cnt", "ds_grads_remaining")
"""Attributes in which a module counts the backward passes for which its weights are still needed."""

MODULE_ATTRIBUTES = ("ds_", "applied_pre_backward_ref_cnt")
"""Beginnings of the names of all attributes that DeepSpeed gives to modules."""


def check_names() -> None:
    """Check that the installed DeepSpeed has all of `NAMES`.

    Raises:
        ProcessGroupError: it lacks one; says which.
    """
    for module, names in NAMES.items():
        for name in names:
            _private(module, name)


def _private(module: str, name: str) -> Any:
    """Return what a module of DeepSpeed has under a name, with dots for attributes of a class."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        installed = importlib.metadata.version("deepspeed")
        raise ProcessGroupError(
            f"DeepSpeed {installed} has no {module}.{name}, which sharded models need ({error}): install "
            f"deepspeed=={LOOKED_AT}"
        ) from error
    return found


def leave_reductions_uncompiled() -> None:
    """Keep DeepSpeed from compiling an extension for processes of one machine, which only its own reductions use."""
    _private("deepspeed.comm.torch", "build_shm_op")
    # In the package the name `torch` also stands for torch itself, which a plain import would give.
    vars(importlib.import_module("deepspeed.comm.torch"))["build_shm_op"] = lambda: None


def linear_that_fetches_again() -> Any:
    """Return a linear map in the place of torch's that keeps no weight for its backward pass, but fetches it again."""
    return _private("deepspeed.runtime.zero.linear", "zero3_linear_wrap")


def running_modules() -> list[nn.Module]:
    """Return DeepSpeed's own stack of the modules that are running, which lives as long as the process."""
    stack: list[nn.Module] = _private("deepspeed.runtime.zero.parameter_offload", "FWD_MODULE_STACK")
    return stack


def clear_caches() -> None:
    """Empty the caches of DeepSpeed's methods, which have models as keys; entries still needed are computed again.

    There is one such cache: once a pass repeats the one before, it holds the weights to release after each module.
    """
    coordinator = _private("deepspeed.runtime.zero.partitioned_param_coordinator", "PartitionedParameterCoordinator")
    for method in vars(coordinator).values():
        # The cached function is wrapped in one that records times, and is reachable only through its closure.
        for cell in getattr(method, "__closure__", None) or ():
            if hasattr(cell.cell_contents, "cache_clear"):
                cell.cell_contents.cache_clear()


def shard(parameter: nn.Parameter, initializer: Any) -> None:
    """Leave each process its part of a parameter, in place.

    Args:
        parameter: the same on all processes, or with the right values in this process's part alone.
        initializer: of the class `deepspeed.zero.Init`.
    """
    initializer._convert_to_deepspeed_param(parameter)
    getattr(parameter, DIVIDE)()
