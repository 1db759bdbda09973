"""Facts from the journals of a sweep: the times of its stages, and the last failure of each."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.store.files import is_plain, visible
from orchestrator.store.journal import SUFFIX, event_of, lines_of


class History:
    """The journals of a results folder; each update continues reading where the last one ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}
        self._telling: set[str] = set()
        self._foreign: set[str] = set()
        self._times: dict[str, tuple[float, int]] = {}
        self._last: dict[str, Mapping[str, Any]] = {}
        self._estimates: dict[str, float] = {}
        self._began: float | None = None
        self._runs: list[tuple[float, str]] = []
        self._loaded: list[tuple[float, float, str]] = []
        self._computed = 0.0

    def update(self) -> None:
        """Read the lines written since the last update; an incomplete line is left for the next one."""
        self._foreign = set()
        for entry in visible(self._folder):
            if not entry.name.endswith(SUFFIX) or not is_plain(entry) or not os.access(entry.path, os.R_OK):
                self._foreign.add(entry.name)
                continue
            start = self._read.get(entry.name, 0)
            if entry.stat().st_size > start:
                for lines, position in lines_of(Path(entry.path), start):
                    self._read[entry.name] = position
                    self._take(entry.name, lines)
            if entry.name in self._read.keys() - self._telling:
                self._foreign.add(entry.name)

    def foreign(self) -> list[str]:
        """Return the names of visible entries of the folder that are not journals, or may not be read."""
        return sorted(self._foreign)

    def total_seconds(self) -> dict[str, float]:
        """Return the time of all finished stages of each kind together, in seconds of one worker."""
        return {kind: seconds for kind, (seconds, _) in self._times.items()}

    def stage_seconds(self) -> dict[str, float]:
        """Return the time of each finished stage, by its identity, in seconds of one worker."""
        return {
            stage: event["seconds"]
            for stage, event in self._last.items()
            if event["event"] == "finished" and "seconds" in event
        }

    def times(self) -> dict[str, tuple[float, int]]:
        """Return the mean time of the finished stages of each kind, in seconds of one worker, and their number."""
        return {kind: (seconds / count, count) for kind, (seconds, count) in self._times.items()}

    def estimates(self) -> dict[str, float]:
        """Return the seconds of a stage of each kind as the runs estimated them when they began."""
        return dict(self._estimates)

    def began(self) -> float | None:
        """Return when the last run of the sweep began, in seconds since 1970; None if none did."""
        return self._began

    def starting(self, executor: str) -> tuple[float, float] | None:
        """Return what the last run by an executor took to start; None if no worker of such a run has said so.

        Returns:
            Seconds from its beginning to its first worker, and seconds in which a worker loaded libraries, on average.
        """
        end = math.inf
        for began, of in sorted(self._runs, reverse=True):
            loaded = [each for each in self._loaded if began <= each[0] < end] if of == executor else []
            end = began
            if loaded:
                workers = {journal for *_, journal in loaded}
                return min(loaded)[0] - began, sum(seconds for _, seconds, _ in loaded) / len(workers)
        return None

    def is_starting(self) -> bool:
        """Tell whether no process has computed since the last run began: its workers start, and load libraries."""
        return self._began is not None and self._computed < self._began

    def failures(self) -> dict[str, Mapping[str, Any]]:
        """Return the failure of every stage whose last attempt failed, oldest first."""
        failed = [event for event in self._last.values() if event["event"] == "failed" and event.get("failure")]
        return {event["stage"]: event for event in sorted(failed, key=lambda event: event["time"])}

    def _take(self, journal: str, lines: list[bytes]) -> None:
        for event in map(event_of, lines):
            if event is None:
                continue  # cut short by a kill or a full disk
            self._telling.add(journal)
            kind = event["event"]
            if kind == "run" and event.get("phase") == "began":
                self._take_beginning(event)
            if isinstance(loading := event.get("loading"), int | float) and math.isfinite(loading):
                self._loaded.append((event["time"] - event.get("seconds", 0.0) - loading, loading, journal))
            if kind in ("started", "loaded", "finished", "failed") and not event.get("loads"):
                self._computed = max(self._computed, event["time"])
            if kind not in ("started", "finished", "failed") or not {"stage", "kind"} <= event.keys():
                continue
            if kind == "finished":
                seconds, count = self._times.get(event["kind"], (0.0, 0))
                self._times[event["kind"]] = seconds + event.get("seconds", 0.0), count + 1
            last = self._last.get(event["stage"])
            if last is None or last["time"] <= event["time"]:
                self._last[event["stage"]] = event

    def _take_beginning(self, event: Mapping[str, Any]) -> None:
        self._began = max(self._began or 0.0, event["time"])
        executor = event.get("executor")
        self._runs.append((event["time"], executor if isinstance(executor, str) else ""))
        estimates = event.get("estimates")
        for kind, seconds in estimates.items() if isinstance(estimates, dict) else ():
            if isinstance(seconds, int | float) and math.isfinite(seconds):
                self._estimates[kind] = float(seconds)
