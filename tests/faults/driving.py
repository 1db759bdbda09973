"""Sweeps that run in processes of their own, so that tests can interrupt, kill and watch them.

They are forked from a server that has loaded the libraries; workers of Ray are not, they start as they always do.
"""

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from orchestrator.store.journal import Journal, read_journals
from tests.served import SERVED

SECONDS = 240
"""No command of these tests takes so long on any machine; one that does hangs."""


@dataclass(frozen=True)
class Answer:
    """Exit status of a command (minus the signal that killed it) and what it said."""

    status: int
    output: str


class Command:
    """A running `ntksweep` in a session of its own, as a shell would start it in a terminal."""

    def __init__(self, *arguments: str | Path, folder: Path, prepare: Callable[[], None] | None = None) -> None:
        self.results = folder / "results"
        self._output = folder / f"output-{uuid4().hex}.txt"
        self._process = SERVED.Process(
            target=_main, args=([str(argument) for argument in arguments], folder, self._output, prepare)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process.pid is not None
        return self._process.pid

    def events(self) -> list[str]:
        """Return the events of stages that this very process has written."""
        events = read_journals(self.results / "journal")
        return [each["event"] for each in events if f"-{self.pid}-" in each["journal"] and "stage" in each]

    @property
    def running(self) -> bool:
        """Tell whether the process is still running."""
        return self._process.is_alive()

    def kill(self) -> None:
        """Kill the process, which gets no chance to say goodbye."""
        os.kill(self.pid, signal.SIGKILL)

    def pause(self) -> None:
        """Stop the process for a while, as a debugger or a suspended laptop does."""
        os.kill(self.pid, signal.SIGSTOP)

    def wait_until_paused(self) -> None:
        """Wait until the process is stopped, as one is that was prepared by `pause_at_event`."""
        stopped = psutil.STATUS_STOPPED
        wait_until(lambda: psutil.Process(self.pid).status() == stopped)

    def resume(self) -> None:
        """Let a paused process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def interrupt(self) -> None:
        """Press Ctrl-C: the terminal sends the signal to every process of the foreground."""
        os.killpg(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM to this process alone, as `kill`, containers and services do."""
        os.kill(self.pid, signal.SIGTERM)

    def terminate_all(self) -> None:
        """Send SIGTERM to the process and then to all of its group, those of Ray among them, as timeout does."""
        self.terminate()
        os.killpg(self.pid, signal.SIGTERM)

    def output(self) -> str:
        """Return what the process has said so far."""
        return self._output.read_text() if self._output.exists() else ""

    def wait(self) -> Answer:
        """Wait until the process ends."""
        self._process.join(SECONDS)
        if self._process.exitcode is None:
            self.kill()
            raise AssertionError(f"the command hangs; it said:\n{self._output.read_text()}")
        return Answer(self._process.exitcode, self._output.read_text())

    def wait_for_events(self, count: int) -> bool:
        """Wait until the journals of the sweep hold so many events; return False if the command ended before."""
        wait_until(lambda: not self.running or count_events(self.results) >= count)
        return count_events(self.results) >= count


def ntksweep(*arguments: str | Path, folder: Path, prepare: Callable[[], None] | None = None) -> Answer:
    """Run a command to its end."""
    return Command(*arguments, folder=folder, prepare=prepare).wait()


def pause_at_event(count: int) -> None:
    """Have this process stopped as soon as its own journal holds so many events."""
    write, left = Journal.write, iter(range(count - 1, -1, -1))

    def counted(journal: Journal, *arguments: Any, **facts: Any) -> None:
        write(journal, *arguments, **facts)
        if next(left, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)

    Journal.write = counted  # type: ignore[method-assign]


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function of a module returns in a process of its own, like those of commands."""
    with SERVED.Pool(1) as pool:
        return pool.apply(function, arguments)


def wait_until(true: Callable[[], bool], *, pause: float = 0.002) -> None:
    """Wait until something is true, looking often; `pause` is the time between two looks, in seconds."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(pause)


def count_events(results: Path) -> int:
    """Return how many lines the journals of a sweep hold."""
    return sum(path.read_bytes().count(b"\n") for path in (results / "journal").glob("*.jsonl"))


def workers_of(results: Path, driver: int) -> list[int]:
    """Return the processes, other than the driver, that have written events of stages and are alive."""
    journals = {event["journal"] for event in read_journals(results / "journal") if "stage" in event}
    found = sorted({int(name.rsplit("-", 2)[1]) for name in journals} - {driver})
    return [process for process in found if Path(f"/proc/{process}").exists()]


def _main(arguments: list[str], folder: Path, output: Path, prepare: Callable[[], None] | None) -> None:
    os.setsid()
    os.chdir(folder)
    # The server ignores interrupts so that its children outlive one; a command of a shell does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if prepare is not None:
        prepare()
    sys.argv = ["ntksweep", *arguments]
    from orchestrator.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()  # which processes of multiprocessing leave out
