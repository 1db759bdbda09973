"""The allocations of a sweep and their states, as Slurm says them."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.cluster.logs import end_reason
from orchestrator.cluster.records import Submission, read_submissions
from orchestrator.sweep.folder import ResultsFolder
from slurm.errors import SlurmError
from slurm.query.commands import run_command
from slurm.query.job_state import State
from slurm.query.states import JobState, query_states

SECONDS_BETWEEN_QUERIES = 30.0
"""Seconds between queries while a sweep is watched, to limit the load on the scheduler."""

PATIENCE = 3.0
"""Seconds to wait for a scheduler that does not answer, before the sweep is shown without its allocations."""


@dataclass(frozen=True)
class Allocation:
    """One allocation of a sweep.

    Attributes:
        submission_id: the submission that asked for it.
        job: its number, such as 12, or 12_3 in an array.
        state: its state.
        words: the reason of its end from its log, if it ended badly.
    """

    submission_id: str
    job: str
    state: JobState
    words: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the allocation as JSON."""
        state = asdict(self.state) | {"state": self.state.state.value, "explanation": self.state.explanation}
        return {"submission": self.submission_id, "words": self.words, **state}


def allocations_of(folder: ResultsFolder, *, patience: float = 30) -> list[Allocation]:
    """Return the allocations of a sweep, oldest first, with their states, asked of the scheduler at once.

    Args:
        folder: the results folder.
        patience: seconds within which a scheduler that does not answer is asked again.

    Raises:
        SlurmError: the scheduler cannot be asked.
    """
    submissions = read_submissions(folder)
    if not submissions:
        return []
    jobs = [job for submission in submissions for job in submission.jobs]
    names = [submission.name for submission in submissions if not submission.complete]
    accounting = any(submission.accounting for submission in submissions)
    states = query_states(jobs, names, accounting=accounting, patience=patience)
    return [
        Allocation(submission.submission_id, state.job, state, _words(folder, submission, state))
        for submission in submissions
        for state in _states_of(submission, list(states.values()))
    ]


def _states_of(submission: Submission, states: Sequence[JobState]) -> list[JobState]:
    sizes = dict(zip(submission.jobs, submission.sizes, strict=False))
    return [
        each
        for state in states
        if state.job.partition("_")[0] in sizes or (not submission.complete and state.name == submission.name)
        for each in _each_task(state, sizes.get(state.job, 1))
    ]


def _each_task(state: JobState, size: int) -> list[JobState]:
    """Return a state for each task of an array that the scheduler does not know yet, or no longer knows."""
    return [replace(state, job=f"{state.job}_{task}") for task in range(size)] if size > 1 else [state]


def _words(folder: ResultsFolder, submission: Submission, state: JobState) -> str:
    # The log of a canceled job adds nothing to its state.
    if state.alive is not False or state.succeeded or state.state is State.CANCELLED:
        return ""
    return end_reason(folder, submission.submission_id, state.job)


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


@dataclass(frozen=True)
class Seen:
    """Result of a look at the allocations of a sweep.

    Attributes:
        allocations: the allocations.
        fault: why the scheduler could not be asked; empty if it could.
    """

    allocations: tuple[Allocation, ...] = ()
    fault: str = ""


class Watched:
    """The allocations of a sweep for repeated looks; the scheduler is queried only now and then."""

    def __init__(self, folder: ResultsFolder) -> None:
        self._folder = folder
        self._seen = Seen()
        self._next_query = 0.0

    def look(self) -> Seen:
        """Return the current or a recent state of the allocations; an unreachable scheduler raises nothing."""
        if time.monotonic() >= self._next_query:
            try:
                self._seen = Seen(tuple(allocations_of(self._folder, patience=PATIENCE)))
            except SlurmError as error:
                self._seen = Seen(self._seen.allocations, str(error))
            self._next_query = time.monotonic() + SECONDS_BETWEEN_QUERIES
        return self._seen
