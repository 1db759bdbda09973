"""Submitting allocations for a sweep: their cost, a check that the cluster can provide them, and the request."""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from orchestrator.cluster.allocations import alive, allocations_of
from orchestrator.cluster.profiles import read_profile
from orchestrator.cluster.records import (
    Submission,
    forget_submission,
    new_submission_id,
    read_submissions,
    write_submission,
)
from orchestrator.cluster.unfit_nodes import without_unfit_nodes
from orchestrator.errors import BudgetError, OutdatedError, ResultsError, SweepError
from orchestrator.installation import check_command
from orchestrator.plan.estimate import Cost, costs, refuse_what_cannot_fit
from orchestrator.plan.index import keep_plan
from orchestrator.plan.plan import Plan
from orchestrator.plan.speeds import speeds_of
from orchestrator.plan.starting import Starting, starting_in_allocation
from orchestrator.spec.quantities import human_bytes
from orchestrator.store.files import make_folder, refuse_unwritable
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.model_memory import model_memory, refuse_model_that_cannot_fit, this_device
from orchestrator.sweep.settings import refuse_untrusted_code
from orchestrator.sweep.survey import keep_surveys
from slurm.profile.profile import Profile
from slurm.profile.quantities import counted
from slurm.query.check import check_profile, refuse_exclusion, try_script
from slurm.query.facts import read_facts
from slurm.query.fitting import refuse_mixed_gpus
from slurm.submit.script import UMASKS
from slurm.submit.submission import Request, SubmissionError, array_sizes, script, submit_allocations

logger = logging.getLogger(__name__)

COMMANDS = ("modules", "setup", "container", "virtual_environment", "python", "sbatch")
"""Keys of a profile with commands that jobs run."""


class AlreadySubmittedError(SweepError):
    """Allocations of the sweep are queued or running, and the user did not ask for more."""


@dataclass(frozen=True)
class Offer:
    """A submission that was prepared but not sent.

    Attributes:
        plan: the sweep's plan.
        costs: costs of the missing stages.
        starting: the time that an allocation takes to start, after its wait in Slurm's queue.
        profile: the resources of each allocation.
        wanted: allocations that were asked for.
        sizes: allocations in each job.
        request: the request to Slurm.
        submission: the record of it.
        left_out: nodes that the jobs avoid, beside those that the profile excludes, with the reasons.
    """

    plan: Plan
    costs: list[Cost]
    starting: Starting | None
    profile: Profile
    wanted: int
    sizes: list[int]
    request: Request
    submission: Submission
    left_out: Mapping[str, str]

    @property
    def count(self) -> int:
        """Allocations; fewer than were asked for where the user may queue no more."""
        return sum(self.sizes)

    @property
    def scripts(self) -> list[str]:
        """The script of each job, where they differ."""
        return [script(self.request, size) for size in dict.fromkeys(self.sizes)]

    @property
    def most_node_hours(self) -> float:
        """Node hours if every allocation runs to its time limit once."""
        return self.count * self.profile.nodes * self.profile.minutes / 60

    @property
    def estimated_hours(self) -> float:
        """Hours from the start of the allocations to the end of the sweep, by the speed of this machine."""
        before = self.starting.seconds if self.starting else 0.0
        return (before + sum(cost.seconds for cost in self.costs if cost.seconds is not None)) / 3600


def prepare(plan: Plan, folder: ResultsFolder, profile: Profile, count: int) -> Offer:
    """Prepare a submission; it queries Slurm for its resources, and submits nothing.

    Args:
        plan: the plan of the sweep.
        folder: its results folder.
        profile: what each allocation asks for.
        count: allocations.

    Raises:
        UntrustedCodeError: the spec asks for code that comes with the model, and the command line does not allow it.
        SlurmError: there is no Slurm, or the cluster cannot give what the profile asks for.
        BudgetError: a stage does not fit an allocation, or the results do not fit the disk.
    """
    refuse_untrusted_code(plan.sweep)
    refuse_unwritable(folder.root)
    facts = read_facts()
    check_profile(profile, facts, results=folder.root)
    refuse_exclusion(profile, facts)
    _refuse_dashboard_without_its_packages(profile)
    if plan.sweep.spec.compute.device == "cuda" and plan.sweep.spec.compute.deterministic:
        refuse_mixed_gpus(profile, facts)
    refuse_what_cannot_fit(plan, folder)
    _refuse_workers_that_cannot_fit(plan, profile)
    free = facts.free_submissions(profile.account, profile.qos)
    sizes = array_sizes(count, max_array_size=facts.max_array_size, free_submissions=free)
    submission = Submission(
        new_submission_id(),
        plan.sweep.spec.name,
        tuple(sizes),
        profile.model_dump(mode="json"),
        facts.accounting,
        plan.sweep.trusts_code,
    )
    # Not kept with the submission: nodes that are repaired before the next one are used again.
    narrower, left_out = without_unfit_nodes(profile, facts, folder)
    request = Request(
        profile=narrower,
        name=submission.name,
        results=folder.root,
        logs=folder.logs / "slurm" / submission.submission_id,
        driver=driver_command(folder, trusts_code=plan.sweep.trusts_code),
        cleanup=("-m", "orchestrator.cluster.release", str(folder.root)),
        check=check_command(),
    )
    workers = sum(sizes) * profile.nodes * profile.tasks_per_node
    offered = costs(plan, folder, speeds_of(plan.sweep.spec, folder), workers=workers)
    start = starting_in_allocation(plan, folder)
    offer = Offer(plan, offered, start, profile, count, sizes, request, submission, left_out)
    for text in offer.scripts:
        try_script(text)
    return offer


def driver_command(folder: ResultsFolder, *, trusts_code: bool) -> tuple[str, ...]:
    """Return the arguments of Python with which an allocation works on a sweep.

    Args:
        folder: the results folder.
        trusts_code: whether code that comes with the model may run there.
    """
    return ("-m", "orchestrator.cluster.driver", str(folder.root), *(["--trust-remote-code"] if trusts_code else []))


def send(offer: Offer, folder: ResultsFolder, *, add: bool, on_submitted: Callable[[str, int], None]) -> Submission:
    """Submit an offer, unless allocations of the sweep are queued or running already.

    Args:
        offer: what `prepare` returned.
        folder: the results folder, in which the sweep is stored.
        add: submit beside those that are queued or running.
        on_submitted: called with the number of each job, and its allocations, as soon as Slurm has accepted it.

    Raises:
        AlreadySubmittedError: there are some, and `add` is not set.
        SlurmError: Slurm refused.
        StorageError: the results folder cannot be written.
    """
    make_folder(folder.root.parent)
    claims = folder.claims()
    with _readable_for(offer.profile):
        claim = claims.take("submission")
        if claim is None:
            raise AlreadySubmittedError(
                "another process is submitting allocations for this sweep at this moment; look with `ntksweep status`"
            )
        try:
            if not add:
                refuse_second_submission(folder)
            _take_folder(offer, folder)
            return _submit_all(offer, folder, on_submitted)
        finally:
            claims.release(claim)


@contextmanager
def _readable_for(profile: Profile) -> Iterator[None]:
    """Make files created in the context, Slurm's own job files among them, readable for the users of a profile."""
    before = os.umask(UMASKS[profile.results])
    try:
        yield
    finally:
        os.umask(before)


def _submit_all(offer: Offer, folder: ResultsFolder, on_submitted: Callable[[str, int], None]) -> Submission:
    submission = offer.submission
    write_submission(folder, submission)
    for size in offer.sizes:
        try:
            job = submit_allocations(offer.request, size)
        except SubmissionError:
            if not submission.jobs:
                forget_submission(folder, submission)  # Slurm accepted none of its jobs
            raise
        submission = submission.with_job(job)
        write_submission(folder, submission)
        logger.info("job %s submitted: %d allocations, logs in %s", job, size, offer.request.logs)
        on_submitted(job, size)
    return submission


def refuse_second_submission(folder: ResultsFolder) -> None:
    """Raise an error if allocations of the sweep are queued or running, or may be.

    Raises:
        AlreadySubmittedError: names them.
        SlurmError: the scheduler cannot be asked.
    """
    living = alive(allocations_of(folder))
    if living:
        named = ", ".join(f"{each.job} ({each.state.state.value})" for each in living[:10])
        raise AlreadySubmittedError(
            f"{len(living)} allocation{'s' if len(living) > 1 else ''} of this sweep may still work on it: {named}; "
            "wait with `ntksweep wait`, end them with `ntksweep cancel`, or submit more beside them with `--add`"
        )


def _take_folder(offer: Offer, folder: ResultsFolder) -> None:
    folder.write(offer.plan.sweep)
    folder.root.chmod(0o777 & ~UMASKS[offer.profile.results])
    store = folder.artifacts()
    keep_surveys(offer.plan.sweep, [variant.survey for variant in offer.plan.variants], store)
    keep_plan(offer.plan, folder)
    folder.refusals().clear()
    offer.request.logs.mkdir(parents=True, exist_ok=True)


def _refuse_workers_that_cannot_fit(plan: Plan, profile: Profile) -> None:
    compute = plan.sweep.spec.compute
    if compute.threads > profile.cpus_per_task:
        raise BudgetError(
            f"compute.threads is {compute.threads} and the profile gives a worker {profile.cpus_per_task} CPUs; raise "
            "the profile's cpus_per_task (threads are part of the numbers)"
        )
    _refuse_groups_that_are_not_whole(plan, profile)
    memory = model_memory(plan.sweep.spec, plan.variants[0].survey)
    if compute.device_memory is not None:  # this machine does not compute
        refuse_model_that_cannot_fit(plan.sweep, plan.variants[0].survey, this_device(plan.sweep.spec, 1))
    on_host = memory.own if memory.offloaded else 0
    weights = memory.certain if compute.device == "cpu" else on_host
    each = compute.memory_budget + weights
    needed = profile.tasks_per_node * each + profile.object_store
    if needed > profile.memory:
        raise BudgetError(
            f"{counted(profile.tasks_per_node, 'worker')} with {human_bytes(compute.memory_budget)} for Jacobians and "
            f"kernels and {human_bytes(weights)} for the model, and Ray's object store of "
            f"{human_bytes(profile.object_store)}, need {human_bytes(needed)} on a node; the profile has "
            f"{human_bytes(profile.memory)}: raise its memory, or lower tasks_per_node, object_store or "
            "compute.memory_budget"
        )


def _refuse_groups_that_are_not_whole(plan: Plan, profile: Profile) -> None:
    spec = plan.sweep.spec
    workers = profile.nodes * profile.tasks_per_node
    if workers % spec.group_size:
        raise BudgetError(
            f"the profile's {counted(profile.nodes, 'node')} with {counted(profile.tasks_per_node, 'worker')} each "
            f"cannot be shared out among process groups of sharding.group_size: {spec.group_size}; make nodes times "
            "tasks_per_node a multiple of it"
        )
    if spec.compute.device == "cuda" and profile.gpus_per_task == 0:
        raise BudgetError(
            "compute.device is cuda and the profile gives a worker no GPU: set its gpus_per_task, or compute.device: "
            "cpu"
        )

    if spec.group_size > 1 and profile.workers_per_gpu > 1:
        raise BudgetError(
            f"the profile's gpus_per_task puts {profile.workers_per_gpu} workers on a GPU, and each process of a model "
            "group (sharding.group_size) needs one for itself, for NCCL connects no two on one: set gpus_per_task: 1"
        )


def _refuse_dashboard_without_its_packages(profile: Profile) -> None:
    elsewhere = profile.container or profile.virtual_environment or profile.python
    if profile.dashboard and not elsewhere and importlib.util.find_spec("aiohttp_cors") is None:
        raise OutdatedError(
            "the profile's `dashboard` needs packages that this environment lacks: pip install 'ray[default]', or set "
            "dashboard: false"
        )


def profile_to_resume_with(folder: ResultsFolder, path: Path | None) -> Profile:
    """Return the profile in a file, or that of the last submission of a sweep.

    Raises:
        ProfileFileError: the file is not valid.
        ResultsError: the sweep was never submitted, or what the folder kept is no profile, and no file is given.
    """
    if path is not None:
        return read_profile(path)
    submissions = read_submissions(folder)
    if not submissions:
        raise ResultsError(f"{folder.root} was never submitted to a cluster; name a profile with --profile")
    try:
        return Profile.model_validate(submissions[-1].profile)
    except ValidationError:
        raise ResultsError(
            f"{folder.submissions}/{submissions[-1].submission_id}.json holds no profile that this version reads; name "
            "one with --profile"
        ) from None


def commands_of(profile: Profile) -> list[str]:
    """Return the commands of a profile that jobs run as the user, line by line: `key: command`."""
    chosen = profile.model_dump(mode="json", exclude_defaults=True, include=set(COMMANDS))
    return [f"{key}: {line}" for key in COMMANDS if chosen.get(key) for line in _lines(chosen[key])]


def _lines(value: str | list[str] | dict[str, str | int | bool]) -> list[str]:
    if isinstance(value, dict):
        return [f"{option}={given}" for option, given in value.items()]
    return [value] if isinstance(value, str) else value
