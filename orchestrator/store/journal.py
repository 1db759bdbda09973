"""Journals: one append-only file for each process, a record of its events that shows that no stage ran twice."""

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from orchestrator.store.files import explained, host_name, make_folder, open_plain, slurm_job, visible

_PIECE = 1 << 24
"""Bytes of a journal that are read at once; no line is longer."""

_TEXTS = ("stage", "kind", "failure", "message", "job", "host")

SUFFIX = ".jsonl"
"""Suffix of the names of journals."""


class Journal:
    """The journal of this process; events are single lines of JSON, appended whole.

    Each says when it was and, on a cluster, in which Slurm job. Events: `started`; then `finished`, `failed`,
    `existing` (someone else finished it first), `damaged` (what it read did not match its checksum) or `released`
    (interrupted); `run` (a run began or ended); and `unfit_gpu` (the GPU of a node is broken, or of another kind).
    """

    def __init__(self, folder: Path) -> None:
        job = slurm_job()
        self._where = {"job": job} if job else {}
        self.path = folder / f"{host_name()}-{os.getpid()}-{time.time_ns():x}{SUFFIX}"
        self._file: int | None = None
        self._torn = False

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with its facts.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        line = json.dumps({"time": time.time(), "event": event, **self._where, **facts}, separators=(",", ":")) + "\n"
        if self._file is None:
            make_folder(self.path.parent)
        with explained(self.path):
            if self._file is None:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            content = (b"\n" if self._torn else b"") + line.encode()
            # A full disk can cut off a line; the next event then begins a new line.
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
    """Yield every event of every process, oldest first; lines that hold none, as after a kill, are left out."""
    events: list[dict[str, Any]] = []
    for entry in visible(folder):
        if entry.name.endswith(SUFFIX):
            for lines, _ in lines_of(Path(entry.path), unfinished=True):
                found = filter(None, map(event_of, lines))
                events.extend({"journal": entry.name.removesuffix(SUFFIX), **event} for event in found)
    yield from sorted(events, key=lambda event: event["time"])


def lines_of(path: Path, start: int = 0, *, unfinished: bool = False) -> Iterator[tuple[list[bytes], int]]:
    """Yield the lines of a file that begin at or after a position, some at a time, with the position after them.

    There are none for a path that is not a file, or may not be read.

    Args:
        path: the file.
        start: the position, in bytes.
        unfinished: also yield a last line without a line end, which may still be incomplete.
    """
    try:
        with open_plain(path) as stream:
            while True:
                stream.seek(start)
                piece = stream.read(_PIECE)
                whole, newline, last = piece.rpartition(b"\n")
                if newline:
                    start += len(whole) + 1
                    yield whole.splitlines(), start
                elif len(piece) == _PIECE:  # no event is that long: it is skipped
                    start += _PIECE
                    yield [], start
                else:
                    if unfinished and last:
                        yield [last], start + len(last)
                    return
    except OSError:
        return


def event_of(line: bytes) -> dict[str, Any] | None:
    """Return the event that a line holds; None if it holds none."""
    try:
        event = from_json(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str) or not _is_number(event.get("time")):
        return None
    if not all(isinstance(event[name], str) for name in _TEXTS if name in event):
        return None
    return event if _is_number(event.get("seconds", 0)) else None


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and math.isfinite(found)
