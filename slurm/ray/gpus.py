"""GPUs by the names that CUDA and Slurm give a process, and the number of workers that share one."""

from collections.abc import Mapping

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables from which torch, when loaded, reads how to divide a GPU's memory: the name since 2.9, and the older."""


def allocator_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that let torch grow its blocks of GPU memory; none if an environment sets its own division.

    With blocks of fixed sizes, batches of changing lengths would leave blocks behind that do not fit the next batch.
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
