"""From the section `compute` of a spec to an executor."""

import os

from orchestrator.executors.base import Executor
from orchestrator.folder import ResultsFolder, Sweep


def worker_count(sweep: Sweep) -> int:
    """Return the number of workers: as the spec says, else one for every `threads` processors of this process."""
    compute = sweep.spec.compute
    if compute.executor == "inline":
        return 1
    return compute.workers or max(1, len(os.sched_getaffinity(0)) // compute.threads)


def make_executor(sweep: Sweep, folder: ResultsFolder) -> Executor:
    """Return the executor that the spec asks for, not yet started."""
    if sweep.spec.compute.executor == "inline":
        from orchestrator.executors.inline import InlineExecutor

        return InlineExecutor(sweep, folder)
    from orchestrator.executors.local_ray import LocalRay
    from orchestrator.executors.ray_workers import RayExecutor

    return RayExecutor(sweep, folder, LocalRay(worker_count(sweep)))
