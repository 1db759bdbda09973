"""From the section `compute` of a spec to an executor."""

import os

from finetune.sharding.group import ModelGroup
from orchestrator.errors import SpecError
from orchestrator.executors.base import Executor
from orchestrator.executors.gpus import gpus_here, room_on_gpus
from orchestrator.folder import ResultsFolder, Sweep


def worker_count(sweep: Sweep) -> int:
    """Return the number of workers: as the spec says, else as many as have GPUs, or `threads` processors each.

    Model groups are whole: there are as many workers as one has, or a multiple.

    Raises:
        SpecError: the spec's number is no multiple.
    """
    compute, size = sweep.spec.compute, sweep.spec.group_size
    if compute.executor == "inline":
        return size
    if compute.workers is not None and compute.workers % size:
        raise SpecError(
            f"{compute.workers} workers make no whole groups of sharding.group_size: {size}; give a multiple of {size}"
        )
    if compute.workers is not None:
        return compute.workers
    room = room_on_gpus(sweep.spec)
    if room is None:
        room = len(os.sched_getaffinity(0)) // compute.threads
    return max(1, room // size) * size


def make_executor(sweep: Sweep, folder: ResultsFolder, group: ModelGroup) -> Executor:
    """Return the executor that the spec asks for, not yet started.

    Args:
        sweep: the sweep.
        folder: its results folder.
        group: the processes that run it inline, of which this one is the first.
    """
    if sweep.spec.compute.executor == "inline":
        from orchestrator.executors.inline import InlineExecutor

        return InlineExecutor(sweep, folder, group)
    from orchestrator.executors.local_ray import LocalRay
    from orchestrator.executors.ray_workers import RayExecutor

    compute = sweep.spec.compute
    gpus = gpus_here() if compute.device == "cuda" else 0
    ray = LocalRay(worker_count(sweep), gpus=gpus, workers_per_gpu=compute.workers_per_gpu)
    return RayExecutor(sweep, folder, ray)
