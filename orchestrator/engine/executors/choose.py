"""From the section `compute` of a spec to an executor."""

from finetune.parallel.process_group import ProcessGroup
from orchestrator.engine.executors.base import Executor
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.workers import gpus_here, worker_count


def make_executor(sweep: Sweep, folder: ResultsFolder, process_group: ProcessGroup) -> Executor:
    """Return the executor that the spec asks for, not yet started.

    Args:
        sweep: the sweep.
        folder: its results folder.
        process_group: the processes that run it inline, of which this one is the first.
    """
    if sweep.spec.compute.executor == "inline":
        from orchestrator.engine.executors.inline import InlineExecutor

        return InlineExecutor(sweep, folder, process_group)
    from orchestrator.engine.executors.local_ray import LocalRay
    from orchestrator.engine.executors.ray_workers import RayExecutor

    compute = sweep.spec.compute
    gpus = gpus_here() if compute.device == "cuda" else 0
    ray = LocalRay(worker_count(sweep), gpus=gpus, workers_per_gpu=compute.workers_per_gpu)
    return RayExecutor(sweep, folder, ray)
