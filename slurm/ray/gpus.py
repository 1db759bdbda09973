"""GPUs as CUDA and Slurm name them to a process, and how many workers share one."""

from collections.abc import Mapping

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Where torch reads, when it is loaded, how it is to divide a GPU's memory: its name since 2.9, and the one before."""


def allocator_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what has torch grow its blocks of a GPU's memory, unless an environment says how it is to be divided.

    Batches of ever other lengths leave blocks of fixed sizes behind, none of which fits the next.
    """
    return {} if any(name in environment for name in ALLOCATOR) else {ALLOCATOR[0]: "expandable_segments:True"}


def visible_gpus(environment: Mapping[str, str]) -> list[str] | None:
    """Return the GPUs that CUDA_VISIBLE_DEVICES gives a process; None where it is not set, which gives all.

    As CUDA reads it: numbers, or names such as GPU-5ee0 and MIG-9c2a, as many as come before the first that is none.
    """
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return None
    found: list[str] = []
    for each in map(str.strip, listed.split(",")):
        if not (each.isdecimal() or each.startswith(("GPU-", "MIG-"))):
            break
        found.append(each)
    return found if len(set(found)) == len(found) else []


def workers_on_a_gpu(workers: int, gpus: int) -> int:
    """Return how many of some workers share a GPU at most, where they are spread over the GPUs; 1 without GPUs."""
    return max(1, -(-workers // gpus)) if gpus else 1


def gpus_of_a_worker(workers: int, gpus: int) -> float:
    """Return how many GPUs each worker has for itself: whole ones, or the part of one that leaves room for all."""
    return float(gpus // workers) if gpus >= workers else 1 / workers_on_a_gpu(workers, gpus) if gpus else 0.0
