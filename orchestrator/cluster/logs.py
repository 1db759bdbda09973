"""The logs that the jobs and the processes of a sweep leave in its results folder."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from orchestrator.errors import ResultsError
from orchestrator.process_log import job_of
from orchestrator.store.files import is_plain, read_plain, visible
from orchestrator.sweep.folder import ResultsFolder
from slurm.ray.node import MARK
from slurm.submit.script import FAULT_MARK

MOST_LINES = 5
"""Lines of an error that are shown; the log has them all."""

_ERROR = re.compile(r"[\w.]+(Error|Exception): ")


@dataclass(frozen=True)
class Log:
    """The end of a log file."""

    path: str
    text: str


def logs_of(folder: ResultsFolder, job: str | None, lines: int) -> list[Log]:
    """Return the ends of a sweep's logs, oldest first: of its jobs, and of processes outside of jobs.

    Of one job they are those of the job, of its nodes, and of its processes.

    Args:
        folder: the results folder.
        job: a job's number, such as 12 or, in an array, 12_3; None takes all.
        lines: most lines of each.

    Raises:
        ResultsError: there are none, or none of jobs where some were submitted.
    """
    submissions = [entry.name for entry in visible(_root(folder))]
    of_jobs = [path for each in submissions for path in _paths(folder, each, job)]
    if submissions and not of_jobs and job is None:
        # That of the command that submitted them says nothing of how they fare.
        raise ResultsError(f"there are no logs of jobs in {_root(folder)}; jobs that never began leave none")
    paths = of_jobs + _of_processes(folder, job)
    found = [(path, facts.st_mtime) for path in paths if (facts := path.lstat()).st_size]
    if not found:
        of = f" of job {job}" if job else ""
        raise ResultsError(f"there are no logs{of} in {folder.logs}; jobs that never began leave none")
    found.sort(key=itemgetter(1))
    return [Log(str(path), "\n".join(_lines(path)[-lines:])) for path, _ in found]


def end_reason(folder: ResultsFolder, submission_id: str, job: str) -> str:
    """Return the reason of a bad end from the log of a job: the fault that it found, else its last line."""
    paths = list(_paths(folder, submission_id, job))
    if not paths:
        return "it left no log: it never began, or its nodes do not see the results folder"
    lines = [line for path in paths if path.suffix == ".err" for line in _lines(path) if _tells(line)]
    faults = [line for line in lines if line.startswith(FAULT_MARK)]
    if faults:
        return faults[-1].removeprefix(FAULT_MARK)
    # The last part of a traceback may have several lines.
    errors = [number for number, line in enumerate(lines) if _ERROR.match(line)]
    return " ".join(lines[errors[-1] if errors else -1 :][:MOST_LINES])


def _tells(line: str) -> bool:
    """Tell whether a line may give the reason of a job's end; the usual lines of Ray's guardian and srun do not."""
    return bool(line.strip()) and not line.startswith((MARK, "srun: "))


def _paths(folder: ResultsFolder, submission_id: str, job: str | None) -> Iterator[Path]:
    """Yield the logs of a submission, or of one of its jobs with those of its nodes: regular files, never links."""
    for entry in visible(_root(folder) / submission_id):
        name, marked, _ = entry.name.rpartition("_log.")
        if marked and is_plain(entry) and job in (None, name.removesuffix("_0")):
            yield Path(entry.path)
        elif job is not None and entry.name == f"{job}_nodes" and entry.is_dir(follow_symlinks=False):
            yield from (Path(each.path) for each in visible(Path(entry.path)) if is_plain(each) and _is_log(each.name))


def _of_processes(folder: ResultsFolder, job: str | None) -> list[Path]:
    """Return the logs of the processes of a job, or of those that ran outside of jobs."""
    entries = (entry for entry in visible(folder.logs) if is_plain(entry) and _is_log(entry.name))
    return [Path(entry.path) for entry in entries if job_of(entry.name) == job]


def _is_log(name: str) -> bool:
    return name.endswith(".log")


def _root(folder: ResultsFolder) -> Path:
    return folder.logs / "slurm"


def _lines(path: Path) -> list[str]:
    try:
        return read_plain(path).decode(errors="replace").splitlines()
    except OSError as error:
        return [f"{path.name} cannot be read ({error.strerror})"]
