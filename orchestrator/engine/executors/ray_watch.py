"""What looks after Ray from outside of it: its processes, the time that its calls take, and the answer to SIGTERM."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

from orchestrator.errors import ExitCode

PROGRAMS = ("gcs_server", "raylet")
"""What a Ray cannot be without."""

LOOK_SECONDS = 0.25

SECONDS_TO_NOTICE = 45.0
"""How long Ray may be lost before this process is ended; Ray itself ends it after 60 seconds, without a word."""

SECONDS_TO_END = 5.0
"""How long killed processes may take to be gone; those that wait for a disk take longer."""

ADVICE = (
    "see whether the machine has memory and processors to spare, then run the same command again, or run without Ray "
    "with `--executor inline`"
)


class RayProcesses:
    """Those that a Ray of this process consists of, as they come."""

    def __init__(self) -> None:
        self._known: dict[psutil.Process, str] = {}
        self._past: set[psutil.Process] = set()

    def find(self) -> None:
        """Take note of those that have been started."""
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                name = child.name()
                if name in PROGRAMS and child not in self._past and _runs(child):
                    self._known[child] = name

    def ended(self) -> str | None:
        """Return the name of one that has ended, if one has."""
        return next((name for process, name in list(self._known.items()) if not _runs(process)), None)

    def end(self) -> None:
        """Kill those that still run, and take none of them for a part of the next Ray."""
        known, self._known = self._known, {}
        self._past |= known.keys()
        _kill(list(known))


class Watchdog:
    """Ends this process, with a message, where Ray keeps it waiting for ever; nothing else can interrupt those calls.

    Args:
        ended: says which of Ray's processes has ended, if one has.
    """

    def __init__(self, ended: Callable[[], str | None]) -> None:
        self._ended = ended
        self._left: float | None = None
        self._doing = ""
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to watch."""
        self._over.clear()
        threading.Thread(target=self._watch, name="ray-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()

    @contextmanager
    def limit(self, doing: str, seconds: float) -> Iterator[None]:
        """Let what is done in the context, such as "start", take so long and no longer."""
        before = self._doing, self._left
        self._doing, self._left = doing, seconds
        try:
            yield
        finally:
            self._doing, self._left = before

    def _watch(self) -> None:
        lost_for = 0.0
        # Not by the clock: it goes on while Slurm or a user has suspended this process.
        while not self._over.wait(LOOK_SECONDS):
            left = self._left
            if left is not None:
                self._left = left - LOOK_SECONDS
                if left < 0:
                    _end(f"Ray did not {self._doing} in time")
            program = self._ended()
            lost_for = lost_for + LOOK_SECONDS if program else 0.0
            if lost_for > SECONDS_TO_NOTICE:
                _end(f"Ray's {program} ended, and what was asked of Ray then does not come back")


def end_processes(numbers: Iterable[int]) -> None:
    """Kill workers of Ray, wherever they are at, and wait until they are gone."""
    workers = []
    for number in numbers:
        with suppress(psutil.Error):
            process = psutil.Process(number)
            if process.name().startswith("ray::"):  # and not another one that has its number by now
                workers.append(process)
    _kill(workers)


@contextmanager
def own_answer_to_sigterm(*, held_back: bool = False) -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which Ray replaces by one that ends the process with a stack.

    Args:
        held_back: whether the signal waits meanwhile; not where processes are started, which would never hear it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM} if held_back else ())
    try:
        yield
    except SystemExit:
        # Ray's own answer, while it starts.
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
