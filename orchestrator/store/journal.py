"""Journals: one append-only file a process, which explain what happened and prove that nothing was done twice."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.store.files import explained, host_name, slurm_job


class Journal:
    """The journal of this process; events are single lines of JSON, appended whole.

    Each says when it was and, on a cluster, in which Slurm job. Events: `started`; then `finished`, `failed`,
    `existing` (someone else finished it first), `damaged` (what it read did not match its checksum) or `released`
    (interrupted); and `run` (a run began or ended).
    """

    def __init__(self, folder: Path) -> None:
        job = slurm_job()
        self._where = {"job": job} if job else {}
        self.path = folder / f"{host_name()}-{os.getpid()}-{time.time_ns():x}.jsonl"
        self._file: int | None = None
        self._torn = False

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with its facts.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        line = json.dumps({"time": time.time(), "event": event, **self._where, **facts}, separators=(",", ":")) + "\n"
        with explained(self.path):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            content = (b"\n" if self._torn else b"") + line.encode()
            # A disk that fills up takes a part of a line; the next event then begins a line of its own.
            self._torn = True
            while content:
                content = content[os.write(self._file, content) :]
            self._torn = False

    def close(self) -> None:
        """Close the file; later events open a new one."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read_journals(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield every event of every process, oldest first; a line cut short by a kill is left out."""
    events: list[dict[str, Any]] = []
    for path in folder.glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            try:
                events.append({"journal": path.stem, **json.loads(line)})
            except ValueError:
                continue
    yield from sorted(events, key=lambda event: event["time"])
