"""States of jobs, asked of Slurm in one command for any number of jobs, and one more while some of them wait."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from slurm.errors import CommandError, SlurmError
from slurm.query.commands import run_command
from slurm.query.explanations import explain
from slurm.query.job_state import ENDED, LIVING, State, state_of

_SACCT = "JobID,State,ExitCode,Reason,NodeList,ElapsedRaw,End,JobName"
_SQUEUE = "JobArrayID:|,State:|,exit_code:|,Reason:|,NodeList:|,TimeUsed:|,RestartCnt:|,Name:"

_SECONDS_FOR_REASONS = 10
"""Seconds within which the controller has to say why jobs wait; without it the reasons of the database remain."""

_ACCOUNTING_LAG = timedelta(minutes=1)
"""Longest delay until the database knows that a job which lost its node, or was preempted, is queued again."""


@dataclass(frozen=True)
class JobState:
    """State of a job, or of one task of a job array.

    Attributes:
        job: its number: 12, or 12_3 in an array.
        name: name of the job; empty if the scheduler did not say.
        state: its state.
        alive: True while it is queued or running, False once it has ended, None if that is not certain.
        exit_code: exit status and signal; None if the scheduler did not say.
        reason: why it waits or ended, in Slurm's words; empty if there is none. Of a job that waits it is the present
            one, where the controller answers.
        nodes: its nodes, as Slurm lists them; empty before it starts.
        elapsed: seconds that it has run since it was last started; None if the scheduler did not say.
        restarts: how often it was queued again; None if the scheduler did not say.
        source: the program that said so.
    """

    job: str
    name: str
    state: State
    alive: bool | None
    exit_code: tuple[int, int] | None
    reason: str
    nodes: str
    elapsed: int | None
    restarts: int | None
    source: Literal["sacct", "squeue"]

    @property
    def succeeded(self) -> bool:
        """True if the job certainly ended well."""
        return self.alive is False and self.state is State.COMPLETED and self.exit_code == (0, 0)

    @property
    def explanation(self) -> str:
        """One sentence for people."""
        return explain(self.state, self.exit_code, self.reason, certain=self.alive is not None)


def query_states(
    jobs: Sequence[str], names: Sequence[str] = (), *, accounting: bool, patience: float = 30
) -> dict[str, JobState]:
    """Ask Slurm for the states of jobs: by one command for all of `jobs`, and one more if there are `names`.

    While some of `jobs` wait, another command asks the controller why they do.

    Args:
        jobs: numbers of jobs; of an array its own, such as 12, which stands for all its tasks.
        names: names of jobs whose numbers were never recorded; they are found while they are queued or running, and
            for some minutes after.
        accounting: whether the cluster keeps ended jobs in a database. While that does not answer, the controller is
            asked instead, and `source` says so.
        patience: seconds within which the controller is asked again while it does not answer.

    Returns:
        the states by job number, every task of an array by itself. A number of which Slurm knows nothing is there as
        GONE or UNKNOWN; a name that it does not know is left out.

    Raises:
        NoSlurmError: there is no Slurm on this machine.
        CommandError: Slurm does not answer.
    """
    found = _states_of_jobs(list(dict.fromkeys(jobs)), accounting, patience) if jobs else []
    if names:
        found += _from_squeue(f"--name={','.join(dict.fromkeys(names))}", patience)
    return {state.job: state for state in found}


def _states_of_jobs(jobs: list[str], accounting: bool, patience: float) -> list[JobState]:
    listed = ",".join(jobs)
    if accounting:
        try:
            found = _with_present_reasons(_from_sacct(listed))
            return _with_missing(found, jobs, State.UNKNOWN, "sacct")
        except CommandError as error:
            if not error.passes:
                raise
    return _with_missing(_from_squeue(f"--jobs={listed}", patience), jobs, State.GONE, "squeue")


def _with_present_reasons(found: list[JobState]) -> list[JobState]:
    """Return states with the reasons for which jobs wait now.

    The database keeps the reason of the moment when it first heard of a job. It has none of a job of which it heard
    before the scheduler had looked at it, nor of one that waited for its turn then and for nodes that are down now.
    """
    waiting = [state.job for state in found if state.state is State.PENDING]
    if not waiting:
        return found
    numbers = dict.fromkeys(job.partition("_")[0] for job in waiting)
    try:
        present = _from_squeue(f"--jobs={','.join(numbers)}", patience=0, timeout=_SECONDS_FOR_REASONS)
    except SlurmError:
        return found
    reasons = {state.job: state.reason for state in present if state.state is State.PENDING}
    return [
        replace(state, reason=reasons.get(state.job, state.reason)) if state.state is State.PENDING else state
        for state in found
    ]


def _from_sacct(jobs: str) -> list[JobState]:
    text = run_command(
        "sacct", "--allocations", "--allusers", "--noheader", "--parsable2", f"--jobs={jobs}", f"--format={_SACCT}",
        patience=3,
    )  # fmt: skip
    return sacct_states(text, now=datetime.now())


def _from_squeue(selection: str, patience: float, timeout: float = 60) -> list[JobState]:
    try:
        text = run_command(
            "squeue", "--all", "--noheader", "--states=all", selection, f"--Format={_SQUEUE}",
            patience=patience, timeout=timeout,
        )  # fmt: skip
        return squeue_states(text)
    except CommandError as error:
        # squeue says so when it knows none of the jobs.
        if "Invalid job id" in error.said:
            return []
        raise


def sacct_states(text: str, *, now: datetime) -> list[JobState]:
    """Read the lines of `sacct`; `now` is the time at which they were written."""
    return [state for line in text.splitlines() if line.strip() for state in _sacct_line(line, now)]


def squeue_states(text: str) -> list[JobState]:
    """Read the lines of `squeue`."""
    return [state for line in text.splitlines() if line.strip() for state in _squeue_line(line)]


def _sacct_line(line: str, now: datetime) -> Iterator[JobState]:
    job, word, exit_code, reason, nodes, elapsed, end, name = _fields(line, "sacct")
    state = state_of(word)
    alive = _alive(state)
    if state in (State.NODE_FAIL, State.PREEMPTED) and not _settled(end, now):
        alive = None
    for task in tasks_of(job):
        yield JobState(
            task,
            name,
            state,
            alive,
            _exit_code(exit_code),
            _said(reason),
            _said(nodes),
            _seconds(elapsed),
            None,
            "sacct",
        )


def _squeue_line(line: str) -> Iterator[JobState]:
    job, word, exit_code, reason, nodes, elapsed, restarts, name = _fields(line, "squeue")
    state = state_of(word)
    for task in tasks_of(job):
        yield JobState(
            task, name.rstrip(), state, _alive(state), _exit_code(exit_code), _said(reason), _said(nodes),
            _seconds(elapsed), int(restarts) if restarts.isdecimal() else None, "squeue",
        )  # fmt: skip


def _fields(line: str, program: str) -> list[str]:
    fields = line.split("|", 7)
    if len(fields) != 8:
        raise CommandError(
            program, f"it wrote `{line[:100]}`", "that is no line that ntksweep can read; run it by hand"
        )
    return fields


def _with_missing(
    found: list[JobState], jobs: list[str], state: State, source: Literal["sacct", "squeue"]
) -> list[JobState]:
    known = {each.job.partition("_")[0] for each in found} | {each.job for each in found}
    missing = [job for job in jobs if job not in known]
    return found + [
        JobState(job, "", state, _alive(state), None, "", "", None, None, source) for job in missing
    ]  # fmt: skip


def tasks_of(job: str) -> list[str]:
    """Return the tasks that an entry stands for: 12_[3-5,9%2] is 12_3, 12_4, 12_5 and 12_9, as long as they wait."""
    found = re.fullmatch(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]", job)
    if found is None:
        return [job]
    array, parts = found[1], found[2].split(",")
    return [f"{array}_{number}" for part in parts for number in _numbers(part)]


def _numbers(part: str) -> range:
    bounds, _, step = part.partition(":")
    first, _, last = bounds.partition("-")
    return range(int(first), int(last or first) + 1, int(step or 1))


def _alive(state: State) -> bool | None:
    return True if state in LIVING else False if state in ENDED else None


def _settled(end: str, now: datetime) -> bool:
    try:
        return now - datetime.fromisoformat(end) > _ACCOUNTING_LAG
    except ValueError:
        return False


def _exit_code(text: str) -> tuple[int, int] | None:
    status, colon, signal = text.partition(":")
    if not status.isdecimal():
        return None
    if colon:
        return (int(status), int(signal)) if signal.isdecimal() else None
    # squeue shows what wait() returned.
    return int(status) >> 8, int(status) & 127


def _said(text: str) -> str:
    return "" if text.strip() in ("None", "None assigned", "(null)", "N/A", "Unknown") else text.strip()


def _seconds(text: str) -> int | None:
    """Read seconds (sacct), or [days-][hours:]minutes:seconds (squeue)."""
    found = re.fullmatch(r"(?:(\d+)-)?((?:\d+:)*\d+)", text.strip())
    if found is None:
        return None
    seconds = 0
    for part in found[2].split(":"):
        seconds = 60 * seconds + int(part)
    return 86_400 * int(found[1] or 0) + seconds
