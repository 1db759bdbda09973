"""Supervision of Ray from outside of it: its processes, and calls that never return because one of them has ended."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import psutil

from orchestrator.errors import ExitCode

PROGRAMS = ("gcs_server", "raylet")
"""Programs that every Ray needs."""

LOOK_SECONDS = 0.25

SECONDS_TO_NOTICE = 45.0
"""Seconds after which this process ends if Ray is lost while something is asked of it."""

SECONDS_TO_END = 5.0
"""Seconds to wait until killed processes are gone; those that wait for a disk take longer."""

ADVICE = (
    "see whether the machine has memory and processors to spare, then run the same command again, or run without Ray "
    "with `--executor inline`"
)


class RayProcesses:
    """The processes of the Ray that this process has started, found as they appear."""

    def __init__(self) -> None:
        self._known: dict[psutil.Process, str] = {}
        self._theirs: set[psutil.Process] = set()
        self._past: set[psutil.Process] = set()

    def find(self) -> None:
        """Record the processes that have been started."""
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                name = child.name()
                if name in PROGRAMS and child not in self._past and _runs(child):
                    self._known[child] = name

    def find_theirs(self) -> None:
        """Record what these processes have started: once they have ended, nothing tells whose it was."""
        for process in self._known:
            with suppress(psutil.Error):
                self._theirs.update(process.children(recursive=True))

    def ended(self) -> str | None:
        """Return the name of a process that has ended; None if all are running."""
        return next((name for process, name in list(self._known.items()) if not _runs(process)), None)

    def end(self) -> None:
        """Kill the processes that still run and what they started; none of them counts as a part of the next Ray."""
        self.find_theirs()
        known, self._known = self._known, {}
        theirs, self._theirs = self._theirs, set()
        self._past |= known.keys()
        _kill([*known, *theirs])


class Watchdog:
    """Ends this process with a message if Ray is lost while a call of it lasts; nothing else interrupts such calls.

    Args:
        ended: says which of Ray's processes has ended, if one has.
    """

    def __init__(self, ended: Callable[[], str | None]) -> None:
        self._ended = ended
        self._over = threading.Event()

    def start(self) -> None:
        """Start watching."""
        self._over.clear()
        threading.Thread(target=self._watch, name="ray-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()

    def _watch(self) -> None:
        lost_for = 0.0
        # Not by the clock: it goes on while Slurm or a user has suspended this process.
        while not self._over.wait(LOOK_SECONDS):
            program = self._ended()
            lost_for = lost_for + LOOK_SECONDS if program else 0.0
            if lost_for > SECONDS_TO_NOTICE:
                _end(f"Ray's {program} ended, so that a call of Ray can never return")


def end_processes(numbers: Iterable[int]) -> None:
    """Kill workers of Ray, whatever they are doing, and wait until they are gone."""
    workers = []
    for number in numbers:
        with suppress(psutil.Error):
            process = psutil.Process(number)
            if process.name().startswith("ray::"):  # and not another one that has its number by now
                workers.append(process)
    _kill(workers)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + SECONDS_TO_END
    while any(map(_runs, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)


def _end(message: str) -> None:
    sys.stderr.write(f"\nerror: {message}; {ADVICE}\n")
    sys.stderr.flush()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os._exit(ExitCode.NO_RAY)
