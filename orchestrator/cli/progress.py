"""Progress of a run on the terminal, on standard error: a bar for each kind of stage, times, and trainings."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from orchestrator.cli.in_progress import clock, joined, remaining, trainings
from orchestrator.cli.terminal import Terminal, line
from orchestrator.errors import SweepError
from orchestrator.results.status import Status

LOOKED_EVERY = 1.0
"""Seconds between two looks at the results folder, at least."""

SHARE = 0.02
"""Most of a run's time that its process takes to look."""

SAID_EVERY = 60.0
"""Seconds between two lines where standard error is no terminal."""


LOADING = "workers are loading libraries"
"""What is said until one of them computes, for no bar moves before."""


def said_first(stages: int) -> str:
    """Return what stands first where standard error is no terminal, for nothing follows for a while."""
    some = "1 stage" if stages == 1 else f"{stages:,} stages"
    return (
        f"{some} to compute, once workers have loaded libraries; a line a minute says how far they are. To interrupt "
        "is safe: what is finished stays, and the same command goes on"
    )


class Bars:
    """Shows the progress of a run; use it as a context manager.

    Args:
        console: where it is shown.
        look: reads how the sweep stands, other runs of it included; None shows no more than this run's own stages.
    """

    def __init__(self, console: Terminal, look: Callable[[], Status] | None = None) -> None:
        self._console = console
        self._look = look
        self._stages = Progress(
            TextColumn("{task.description:<8}", markup=False), BarColumn(), MofNCompleteColumn(), console=console
        )
        self._tasks: dict[str, TaskID] = {}
        self._began = time.monotonic()
        self._found: Status | None = None
        self._workers = 0
        self._left = 0
        self._over = threading.Event()
        self._live = Live(console=console, get_renderable=self._view, refresh_per_second=2)
        self._looking = threading.Thread(target=self._keep_looking, name="progress", daemon=True)

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None:
        """Show a bar for each kind that has stages."""
        for kind, total in totals.items():
            if not total:
                continue
            if kind not in self._tasks:
                self._tasks[kind] = self._stages.add_task(kind, total=total, completed=finished[kind])
            self._stages.update(self._tasks[kind], total=total, completed=finished[kind])
        self._left = sum(totals.values()) - sum(map(finished.__getitem__, totals))
        if self._tasks and not self._live.is_started:
            self._began = time.monotonic()
            if self._left and not self._console.is_terminal:
                self._console.print(line(said_first(self._left)), soft_wrap=True)
            self._live.start()
            if self._look is not None:
                self._looking.start()

    def advance(self, kind: str) -> None:
        """Move the bar of a kind by one stage."""
        self._stages.advance(self._tasks[kind])

    def note(self, message: str) -> None:
        """Print a message above the bars."""
        self._console.print(message, style="yellow")

    def _keep_looking(self) -> None:
        said = self._began
        while not self._over.is_set():
            began = time.monotonic()
            with suppress(SweepError, OSError):  # what is wrong with the folder, the run itself meets
                assert self._look is not None
                self._found = self._look()
                self._workers = max(self._workers, self._found.workers)
            took = time.monotonic() - began
            if not self._console.is_terminal and began - said >= SAID_EVERY:
                said = began
                self._console.print(self._times(), soft_wrap=True)
            self._over.wait(max(LOOKED_EVERY, took / SHARE))

    def _view(self) -> RenderableType:
        found = self._found
        parts: list[RenderableType] = [self._stages.get_renderable(), self._times()]
        if found is not None and not self._over.is_set():
            tables = trainings(found.computing)
            parts += [Text(), *tables] if tables else []
        return Group(*parts)

    def _times(self) -> Text:
        found, ended = self._found, self._over.is_set()
        elapsed = f"{clock(time.monotonic() - self._began)} elapsed"
        if found is None or ended:
            return line(elapsed)
        cells = f"{found.cells_finished} of {found.cells} cells complete"
        loading = LOADING if found.starting and self._left else ""
        return line(joined((elapsed, loading, remaining(found.worker_seconds, self._workers), cells)))

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._looking.is_alive():
            self._looking.join()
        if self._live.is_started:  # otherwise nothing was shown, and stopping would print an empty line
            self._live.stop()
            if not self._console.is_interactive:
                self._console.print()  # the last line is then left open
