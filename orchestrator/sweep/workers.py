"""Number of workers of a sweep on this machine, and checks that its GPUs have room for them."""

import os

from orchestrator.errors import SpecError
from orchestrator.spec import Spec
from orchestrator.sweep.folder import Sweep
from slurm.profile.quantities import counted
from slurm.ray.gpus import visible_gpus


def worker_count(sweep: Sweep) -> int:
    """Return the number of workers: that of the spec, else one for each share of a GPU or each `threads` processors.

    The number is a multiple of the size of a process group.

    Raises:
        SpecError: the spec's number is no multiple.
    """
    compute, size = sweep.spec.compute, sweep.spec.group_size
    if compute.executor == "inline":
        return size
    if compute.workers is not None and compute.workers % size:
        raise SpecError(
            f"{compute.workers} workers cannot be shared out among process groups of sharding.group_size: {size}; give "
            f"a multiple of {size}",
            key="compute.workers",
        )
    if compute.workers is not None:
        return compute.workers
    room = room_on_gpus(sweep.spec)
    if room is None:
        room = len(os.sched_getaffinity(0)) // compute.threads
    return max(1, room // size) * size


def gpus_here() -> int:
    """Return the number of GPUs that workers of this process can use on this machine."""
    import torch

    count: int = torch.cuda.device_count()
    listed = visible_gpus(os.environ) or []
    # A process sees one MIG instance, however many it is given; its workers get one each.
    return len(listed) if count and listed and listed[0].startswith("MIG-") else count


def room_on_gpus(spec: Spec) -> int | None:
    """Return the number of workers that this machine's GPUs can hold; None if the workers need none or it has none."""
    if spec.compute.device != "cuda":
        return None
    return gpus_here() * spec.compute.workers_per_gpu or None


def shortage_of_gpus(spec: Spec, workers: int) -> str | None:
    """Return advice if this machine's GPUs have no room for the workers of a spec; None if they have."""
    room = room_on_gpus(spec)
    if room is None or workers <= room or spec.compute.executor == "inline":
        return None
    has = f"this machine has {counted(gpus_here(), 'GPU')}"
    if spec.group_size > 1:
        return (
            f"{workers} workers in groups of sharding.group_size: {spec.group_size} need a GPU each, and {has}: lower "
            "compute.workers or sharding.group_size"
        )
    return (
        f"{workers} workers do not find room: {has}, and compute.workers_per_gpu is {spec.compute.workers_per_gpu}: "
        f"set compute.workers: {room}, or compute.workers_per_gpu: {-(-workers // gpus_here())} to divide the memory "
        "of a GPU among as many"
    )


def refuse_more_workers_than_gpus_hold(spec: Spec, workers: int) -> None:
    """Raise an error if workers of a spec would wait forever for room on this machine's GPUs.

    Raises:
        SpecError: says how many there may be.
    """
    if (shortage := shortage_of_gpus(spec, workers)) is not None:
        raise SpecError(shortage, key="compute.workers")
