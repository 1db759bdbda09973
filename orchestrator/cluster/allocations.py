"""The allocations of a sweep and how they stand, asked of Slurm in one query."""

from collections.abc import Sequence
from dataclasses import dataclass

from slurm.states import JobState, query_states

from orchestrator.cluster.records import Submission, read_submissions
from orchestrator.folder import ResultsFolder
from slurm.commands import run_command


@dataclass(frozen=True)
class Allocation:
    """One allocation of a sweep.

    Attributes:
        submission_id: the submission that asked for it.
        job: its number, such as 12, or 12_3 in an array.
        state: how it stands.
    """

    submission_id: str
    job: str
    state: JobState


def allocations_of(folder: ResultsFolder) -> list[Allocation]:
    """Return the allocations of a sweep, oldest first, with their states from one query of the scheduler.

    Raises:
        SlurmError: the scheduler cannot be asked.
    """
    submissions = read_submissions(folder)
    if not submissions:
        return []
    jobs = [job for submission in submissions for job in submission.jobs]
    names = [submission.name for submission in submissions if not submission.complete]
    states = query_states(jobs, names, accounting=any(submission.accounting for submission in submissions))
    return [
        Allocation(submission.submission_id, state.job, state)
        for submission in submissions
        for state in _states_of(submission, list(states.values()))
    ]


def _states_of(submission: Submission, states: Sequence[JobState]) -> list[JobState]:
    return [
        state
        for state in states
        if state.job.partition("_")[0] in submission.jobs or (not submission.complete and state.name == submission.name)
    ]


def alive(allocations: Sequence[Allocation]) -> list[Allocation]:
    """Return the allocations that are queued or running, or of which that is not certain."""
    return [allocation for allocation in allocations if allocation.state.alive is not False]


def cancel_allocations(allocations: Sequence[Allocation]) -> None:
    """Cancel allocations; those that have ended in the meantime are left alone.

    Raises:
        SlurmError: the scheduler cannot be asked.
    """
    if allocations:
        run_command("scancel", *(allocation.job for allocation in allocations))
