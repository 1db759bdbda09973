"""From the section `compute` of a spec to an executor."""

import os

from finetune.sharding.group import ModelGroup
from orchestrator.errors import SpecError
from orchestrator.executors.base import Executor
from orchestrator.folder import ResultsFolder, Sweep


def worker_count(sweep: Sweep) -> int:
    """Return the number of workers: as the spec says, else one for every `threads` processors of this process.

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
    groups = len(os.sched_getaffinity(0)) // compute.threads // size
    return compute.workers or max(1, groups) * size


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

    return RayExecutor(sweep, folder, LocalRay(worker_count(sweep), on_gpus=sweep.spec.compute.device == "cuda"))
