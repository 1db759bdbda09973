"""The memory that a batch takes on the device that computes it, and the memory that there is for one."""

from collections.abc import Callable

import torch

from finetune.sharding.memory import give_back
from ntk_dist.device_share import bytes_left
from orchestrator.errors import SweepError
from orchestrator.stages.resources import peak_memory, reset_peak_memory

SHARE_OF_FREE = 0.8
"""Part of the memory left of a GPU that a batch may take; the rest is for what lies between blocks of other sizes."""


def batch_limit(device: torch.device, budget: int) -> int:
    """Return the bytes that a batch may take beside the model.

    Args:
        device: where it is computed, with the model on it.
        budget: bytes that it may take of the host's memory, which other workers share: how much of that is free now
            says little.
    """
    if device.type == "cpu":
        return budget
    return int(SHARE_OF_FREE * bytes_left(device))


def peak_of(run: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes that `run` took on the device at a time, beyond what was taken before.

    Raises:
        SweepError: the system does not tell.
    """
    if device.type != "cpu":
        module = torch.get_device_module(device)
        module.reset_peak_memory_stats(device)
        before = module.memory_allocated(device)
        run()
        return int(module.max_memory_allocated(device) - before)
    # Memory that was freed but not given back would be used again, and not be seen.
    give_back()
    if not reset_peak_memory():
        raise SweepError(
            "compute.batch_tokens: auto measures the memory of batches, which this system does not tell; give a number"
        )
    before = peak_memory()
    run()
    return peak_memory() - before


def forget_batch(device: torch.device) -> None:
    """Give back what a batch that ran out of memory has left."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
    else:
        give_back()
