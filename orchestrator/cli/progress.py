"""Progress of a run on the terminal: a bar for each kind of stage, on standard error."""

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from orchestrator.cli.terminal import Terminal


class Bars:
    """Shows the progress of a run; use it as a context manager."""

    def __init__(self, console: Terminal) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<8}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None:
        """Show a bar for each kind that has stages."""
        self._progress.start()
        for kind, total in totals.items():
            if not total:
                continue
            if kind not in self._tasks:
                self._tasks[kind] = self._progress.add_task(kind, total=total, completed=finished[kind], start=False)
            self._progress.update(self._tasks[kind], total=total, completed=finished[kind])

    def advance(self, kind: str) -> None:
        """Move the bar of a kind by one stage; its clock starts with its first."""
        task = self._tasks[kind]
        self._progress.start_task(task)
        self._progress.advance(task)
        if self._progress.tasks[task].finished:
            self._progress.stop_task(task)

    def note(self, message: str) -> None:
        """Print a message above the bars."""
        self._progress.console.print(message, style="yellow")

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks:  # otherwise nothing was shown, and stopping would print an empty line
            self._progress.stop()
