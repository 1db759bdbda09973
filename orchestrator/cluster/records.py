"""Records of submissions: the requests to Slurm for a sweep, kept in its results folder for later commands.

A record is written before the request, without job numbers, and again with them. If the submitting process is killed
in between, the jobs are found by their name, which no other submission has.
"""

import getpass
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

from pydantic import Field, TypeAdapter

from orchestrator.store import files
from orchestrator.sweep.folder import ResultsFolder


@dataclass(frozen=True)
class Submission:
    """One submission.

    Attributes:
        submission_id: its identity.
        sweep: name of the sweep.
        sizes: allocations in each job; a job of several is an array.
        trust_remote_code: whether its allocations may run code that comes with the model.
        jobs: numbers of the jobs, in the order of `sizes`; fewer while, or if, they were not all submitted.
        profile: the profile, as JSON.
        accounting: whether the cluster keeps accounts of ended jobs.
        time: when, in seconds since 1970.
        user: by whom.
        host: from where.
    """

    submission_id: Annotated[str, Field(pattern=r"^[0-9a-z]+$")]
    sweep: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    sizes: tuple[int, ...]
    profile: Mapping[str, Any]
    accounting: bool
    trust_remote_code: bool = False
    jobs: tuple[Annotated[str, Field(pattern=r"^[0-9]+$")], ...] = ()
    time: float = field(default_factory=time.time)
    user: str = field(default_factory=getpass.getuser)
    host: str = field(default_factory=files.host_name)

    @property
    def name(self) -> str:
        """Name of its jobs."""
        return f"ntksweep-{self.sweep}-{self.submission_id}"

    @property
    def complete(self) -> bool:
        """True if the number of every job was recorded."""
        return len(self.jobs) == len(self.sizes)

    def with_job(self, job: str) -> "Submission":
        """Return the submission with one more job."""
        return replace(self, jobs=(*self.jobs, job))


_RECORD = TypeAdapter(Submission)


def new_submission_id() -> str:
    """Return an identity that no other submission has."""
    return uuid4().hex[:8]


def write_submission(folder: ResultsFolder, submission: Submission) -> None:
    """Write the record of a submission, or replace it.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = folder.submissions / f"{submission.submission_id}.json"
    with files.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, json.dumps(asdict(submission), indent=1).encode())


def forget_submission(folder: ResultsFolder, submission: Submission) -> None:
    """Remove the record of a submission that Slurm refused.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = folder.submissions / f"{submission.submission_id}.json"
    with files.explained(path):
        path.unlink(missing_ok=True)


def read_submissions(folder: ResultsFolder) -> list[Submission]:
    """Return all submissions of a sweep, oldest first.

    Records that cannot be read or are not valid are left out, because their content is used to find jobs and files.
    """
    found = []
    for entry in files.visible(folder.submissions):
        if not entry.name.endswith(".json"):
            continue
        try:
            submission = _RECORD.validate_json(files.read_plain(Path(entry.path)))
        except (OSError, ValueError):
            continue
        if f"{submission.submission_id}.json" == entry.name:
            found.append(submission)
    return sorted(found, key=lambda submission: submission.time)
