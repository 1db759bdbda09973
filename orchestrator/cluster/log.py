"""Progress as lines of a log, for jobs without a terminal."""

import time

from orchestrator.engine.schedule import Report

EVERY_SECONDS = 10.0
"""Seconds between two lines of progress, at least, in a job's log."""


class LogLines:
    """Prints the progress of a run as occasional lines with the time."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._finished: dict[str, int] = {}
        self._next = 0.0

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None:
        """Print the number of stages of each kind, and of those that are finished already."""
        self._totals, self._finished = totals, dict(finished)
        self._say(self._summary())

    def advance(self, kind: str) -> None:
        """Count a finished stage."""
        self._finished[kind] += 1
        if time.monotonic() >= self._next:
            self._say(self._summary())

    def note(self, message: str) -> None:
        """Print a message that the user should read."""
        self._say(message)

    def end(self, report: Report, n_cells: int) -> None:
        """Print the result of the run."""
        if report.stopped:
            self._say(f"stopped; {report.open} stages are open")
        elif report.left:
            self._say(f"nothing is left to do here; other runs compute the {report.open} open stages")
        else:
            self._say(f"done; {n_cells} cells in the tables, {len(report.failures)} stages failed")
        for failure in report.failures:
            self._say(f"failed ({failure.failure}): {failure.stage.label}: {failure.message.strip()}")

    def _summary(self) -> str:
        return ", ".join(f"{kind} {self._finished[kind]}/{total}" for kind, total in self._totals.items() if total)

    def _say(self, message: str) -> None:
        self._next = time.monotonic() + EVERY_SECONDS
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}", flush=True)
