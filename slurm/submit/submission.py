"""Submission of a profile's jobs through submitit, and the script that Slurm gets."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm.errors import SlurmError, SubmissionLimitError
from slurm.profile.profile import Profile
from slurm.ray.cluster import RaySettings
from slurm.submit.allocation import Allocation
from slurm.submit.script import python_command, setup_lines


class SubmissionError(SlurmError):
    """Slurm refused a job."""


@dataclass(frozen=True)
class Request:
    """Allocations to submit.

    Attributes:
        profile: what each asks for.
        name: name of the jobs, by which they are found again if their numbers were never recorded.
        results: the results folder, which every node must see.
        logs: folder for the logs of the jobs.
        driver: arguments of Python for the driver that runs in each.
        cleanup: arguments of Python for what is run after a driver.
        check: arguments of Python for what is run before all else; it says what is wrong, and exits with
            `CONFIGURATION_FAULT`, where the job must not go on.
    """

    profile: Profile
    name: str
    results: Path
    logs: Path
    driver: tuple[str, ...]
    cleanup: tuple[str, ...]
    check: tuple[str, ...] = ()


def array_sizes(count: int, *, max_array_size: int, free_submissions: int | None) -> list[int]:
    """Return the sizes of the job arrays that hold `count` allocations together; an array of one is a plain job.

    If the user may queue fewer than `count`, the sizes hold that many: the allocations that there are do all the work.

    Args:
        count: allocations wanted, at least 1.
        max_array_size: most tasks that the cluster lets an array have; 0 or 1 where there are no arrays.
        free_submissions: how many more jobs the user may queue, each task of an array counting as one; None for any.

    Raises:
        SubmissionLimitError: the user may queue no further job.
    """
    allowed = count if free_submissions is None else min(count, free_submissions)
    if allowed < 1:
        raise SubmissionLimitError(
            "you have as many jobs queued as this cluster lets you have; wait until some have ended, or cancel some "
            "with `scancel`"
        )
    largest = max(1, max_array_size)
    whole, rest = divmod(allowed, largest)
    return [largest] * whole + ([rest] if rest else [])


def script(request: Request, count: int) -> str:
    """Return the exact script that `submit_allocations` gives to sbatch for `count` allocations."""
    executor = _executor(request)
    if count > 1:
        executor.parameters["map_count"] = count
    return str(executor._make_submission_file_text(executor._submitit_command_str, ""))


def submit_allocations(request: Request, count: int) -> str:
    """Submit `count` allocations as one job, an array if there are several; return its number.

    Raises:
        SubmissionError: sbatch refused.
    """
    import submitit

    executor = _executor(request)
    allocation = _allocation(request)
    try:
        with executor.batch():
            jobs = [executor.submit(allocation) for _ in range(count)]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        raise SubmissionError(f"sbatch refused the job: {error}") from None
    return str(jobs[0].job_id).partition("_")[0]


def _executor(request: Request) -> Any:
    import submitit

    profile = request.profile
    # Without a shell in between, Slurm's signal reaches Python itself.
    executor = submitit.SlurmExecutor(
        request.logs, max_num_timeout=profile.requeues, python="exec " + shlex.join(python_command(profile))
    )
    gpu = f"gpu:{profile.gpu_type}" if profile.gpu_type else "gpu"
    executor.update_parameters(
        job_name=request.name,
        time=profile.minutes,
        partition=profile.partition,
        account=profile.account,
        qos=profile.qos,
        nodes=profile.nodes,
        ntasks_per_node=profile.tasks_per_node,
        cpus_per_task=profile.cpus_per_task,
        mem=f"{profile.memory_mebibytes}M",
        gres=f"{gpu}:{profile.gpus_per_node}" if profile.gpus_per_node else None,
        constraint=profile.constraint,
        exclude=profile.exclude,
        signal_delay_s=profile.signal_seconds,
        array_parallelism=1 << 20,  # as many at once as the cluster lets run
        wckey=None,
        setup=setup_lines(profile, request.results, request.check),
        use_srun=False,
        additional_parameters={
            "signal": f"B:USR2@{profile.signal_seconds}",
            "requeue": True,
            "no-kill": True,  # the other nodes go on working when one is lost
            "chdir": str(request.results.parent),
            **profile.sbatch,
        },
    )
    return executor


def _allocation(request: Request) -> Allocation:
    profile, python = request.profile, python_command(request.profile)
    return Allocation(
        driver=(*python, *request.driver),
        cleanup=(*python, *request.cleanup),
        ray=RaySettings(
            workers_per_node=profile.tasks_per_node,
            cpus_per_node=profile.cpus_per_node,
            gpus_per_node=profile.gpus_per_node,
            memory_bytes=int(profile.memory),
            object_store_bytes=int(profile.object_store),
            local_scratch=profile.local_scratch,
            dashboard=profile.dashboard,
            python=python,
        ),
        logs=str(request.logs),
        signal_seconds=profile.signal_seconds,
    )
