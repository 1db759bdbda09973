"""Progress of a run that a program started: bars on a terminal, one table in a notebook, or nothing."""

import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orchestrator.literal import printable
from orchestrator.sweep.folder import ResultsFolder

if TYPE_CHECKING:
    from orchestrator.engine.schedule import Progress

SECONDS_BETWEEN = 0.25
"""Seconds between two updates of the table in a notebook."""


class Silent:
    """Receives the progress of a run, and shows nothing."""

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None:
        """Take the numbers of stages."""

    def advance(self, kind: str) -> None:
        """Take the end of a stage."""

    def note(self, message: str) -> None:
        """Take a message."""


class NotebookTable:
    """Shows the progress of a run in one output of a notebook, which is replaced as it goes on."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._finished: dict[str, int] = {}
        self._notes: list[str] = []
        self._began = time.monotonic()
        self._last = 0.0
        self._handle: Any = None

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None:
        """Show a row for each kind that has stages."""
        self._totals = {kind: total for kind, total in totals.items() if total}
        self._finished = dict(finished)
        self.show()

    def advance(self, kind: str) -> None:
        """Count a stage of a kind."""
        self._finished[kind] += 1
        if time.monotonic() - self._last >= SECONDS_BETWEEN:
            self.show()

    def note(self, message: str) -> None:
        """Show a message below the table."""
        self._notes.append(message)
        self.show()

    def show(self) -> None:
        """Send the table as it is now."""
        from IPython.display import display

        if not self._totals and not self._notes:
            return
        self._last = time.monotonic()
        shown = {"text/html": self._html(), "text/plain": self._text()}
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def _counts(self) -> Iterator[tuple[str, int, int]]:
        yield from ((kind, self._finished[kind], total) for kind, total in self._totals.items())

    def _text(self) -> str:
        counted = ", ".join(f"{kind} {done}/{total}" for kind, done, total in self._counts())
        return "\n".join(filter(None, [counted, *map(printable, self._notes)]))

    def _html(self) -> str:
        rows = "".join(
            f"<tr><td style='text-align:left'>{html.escape(kind)}</td>"
            f"<td><progress value='{done}' max='{total}'></progress></td><td>{done} of {total}</td></tr>"
            for kind, done, total in self._counts()
        )
        notes = "".join(f"<div>{html.escape(printable(note))}</div>" for note in self._notes)
        seconds = f"<div>{time.monotonic() - self._began:.0f} s</div>" if rows else ""
        return f"<table>{rows}</table>{seconds}{notes}"


def in_notebook() -> bool:
    """Return whether a kernel of Jupyter runs this program."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def shown_progress(wanted: "bool | Progress", folder: ResultsFolder) -> "Iterator[Progress]":
    """Yield the receiver of a run's progress: the program's own, or the one that fits the place where it runs.

    Args:
        wanted: whether to show progress; or the program's own receiver.
        folder: the results folder of the run.
    """
    if not isinstance(wanted, bool):
        yield wanted
    elif not wanted:
        yield Silent()
    elif in_notebook():
        table = NotebookTable()
        try:
            yield table
        finally:
            table.show()
    else:
        from orchestrator.cli.progress import Bars
        from orchestrator.cli.terminal import Terminal
        from orchestrator.cli.watching import looking_at

        with Bars(Terminal(stderr=True), looking_at(folder)) as bars:
            yield bars
