"""The memory of a GPU, and each process's part of it where several share the GPU."""

import torch

CONTEXT_BYTES = 600 << 20
"""Bytes of a GPU that CUDA and its libraries take for each process, beside the tensors."""


def part_of_gpu(memory: int, workers: int) -> int:
    """Return the bytes that each of some workers has for its tensors on a GPU with so much memory."""
    return memory if workers == 1 else max(0, memory // workers - CONTEXT_BYTES)


def take_part(device: torch.device, workers: int) -> None:
    """Limit this process to its part of a GPU's memory: a larger request fails here, and not in other processes."""
    if device.type == "cpu" or workers == 1:
        return
    module = torch.get_device_module(device)
    memory = module.mem_get_info(device)[1]
    module.set_per_process_memory_fraction(part_of_gpu(memory, workers) / memory, device)


def bytes_left(device: torch.device) -> int:
    """Return the bytes that this process's tensors may still take on a GPU, including those in torch's cache.

    Other processes that share the GPU will use their parts, so that not all free memory belongs to this process.
    """
    module = torch.get_device_module(device)
    free, memory = module.mem_get_info(device)
    reserved = module.memory_reserved(device)
    part = int(module.get_per_process_memory_fraction(device) * memory)
    return int(max(0, min(free, part - reserved)) + reserved - module.memory_allocated(device))
