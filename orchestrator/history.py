"""What the journals say of a sweep so far: how long stages took, and the last failure of each."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json


class History:
    """The journals of a results folder, each read on from where the last look ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}
        self._times: dict[str, tuple[float, int]] = {}
        self._last: dict[str, Mapping[str, Any]] = {}

    def update(self) -> None:
        """Read what was written since the last look; a line that is still being written waits for the next."""
        try:
            with os.scandir(self._folder) as entries:
                sizes = {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(".jsonl")}
        except FileNotFoundError:
            return  # nothing has run yet
        for name, size in sizes.items():
            start = self._read.get(name, 0)
            if size > start:
                with self._folder.joinpath(name).open("rb") as stream:
                    stream.seek(start)
                    whole, newline, _ = stream.read().rpartition(b"\n")
                self._read[name] = start + len(whole) + len(newline)
                self._take(whole.splitlines())

    def mean_seconds(self) -> dict[str, float]:
        """Return the mean time of the finished stages of each kind, in seconds of one worker."""
        return {kind: seconds / count for kind, (seconds, count) in self._times.items()}

    def failures(self) -> dict[str, Mapping[str, Any]]:
        """Return the failure of every stage whose last attempt failed, oldest first."""
        failed = [event for event in self._last.values() if event["event"] == "failed" and event.get("failure")]
        return {event["stage"]: event for event in sorted(failed, key=lambda event: event["time"])}

    def _take(self, lines: list[bytes]) -> None:
        for line in lines:
            try:
                event = from_json(line)
            except ValueError:
                continue  # cut short by a kill or a full disk
            kind = event["event"]
            if kind not in ("started", "finished", "failed"):
                continue
            if kind == "finished":
                seconds, count = self._times.get(event["kind"], (0.0, 0))
                self._times[event["kind"]] = seconds + event["seconds"], count + 1
            last = self._last.get(event["stage"])
            if last is None or last["time"] <= event["time"]:
                self._last[event["stage"]] = event
