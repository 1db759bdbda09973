"""The memory of a GPU, and the part of it that a process has where several share it."""

import torch

CONTEXT_BYTES = 600 << 20
"""What CUDA and its libraries take of a GPU for each process, beside the tensors."""


def part_of_gpu(memory: int, workers: int) -> int:
    """Return the bytes that each of some workers has for its tensors on a GPU with so much memory."""
    return memory if workers == 1 else max(0, memory // workers - CONTEXT_BYTES)


def take_part(device: torch.device, workers: int) -> None:
    """Have this process take no more of a GPU than its part: what asks for more fails, and not what runs beside it."""
    if device.type == "cpu" or workers == 1:
        return
    module = torch.get_device_module(device)
    memory = module.mem_get_info(device)[1]
    module.set_per_process_memory_fraction(part_of_gpu(memory, workers) / memory, device)


def bytes_left(device: torch.device) -> int:
    """Return how many bytes tensors of this process may still take on a GPU, what torch keeps for them counted in.

    Others that share the GPU take what is theirs sooner or later, so that what is free now is not all this process's.
    """
    module = torch.get_device_module(device)
    free, memory = module.mem_get_info(device)
    reserved = module.memory_reserved(device)
    part = int(module.get_per_process_memory_fraction(device) * memory)
    return int(max(0, min(free, part - reserved)) + reserved - module.memory_allocated(device))
