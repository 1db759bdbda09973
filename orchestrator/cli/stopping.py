"""Handling of stop signals: SIGTERM and SIGHUP end a command as Ctrl-C does, and a run says at once that it stops."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from orchestrator.errors import ExitCode

STATUSES = {signal.SIGTERM: ExitCode.TERMINATED, signal.SIGHUP: ExitCode.HUNG_UP}

AGAIN_AFTER = 0.1
"""Seconds after which a signal is sent again whose interrupt Python has dropped."""

AS_ONE = 1.0
"""Seconds within which a signal that comes twice counts once: timeout, systemd and Slurm send it to a process, and to
all of its group or step."""

STOPPING = "stopping: finished stages are kept and written into the tables; a second signal ends the command at once"


_told_by: list[signal.Signals] = []
"""The signals that told this command to stop, but for Ctrl-C: Ray makes a plain KeyboardInterrupt of what interrupts a
call of it."""

_came: dict[int, float] = {}
"""When each signal came that counted, by the monotonic clock."""


class StoppedError(KeyboardInterrupt):
    """A signal told the command to stop."""


def stop_as_by_ctrl_c() -> None:
    """Make SIGTERM (from containers, services and `kill`) and SIGHUP (from a closed terminal) raise StoppedError.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored. An interrupt that comes while Python runs what
    may raise nothing, as `__del__` and the end of an import, is dropped by Python: its signal is then sent again.
    """
    _told_by.clear()
    _came.clear()
    sys.unraisablehook = _send_again
    for number in STATUSES:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _stop)


@contextmanager
def said_at_once(say: Callable[[str], None]) -> Iterator[None]:
    """Say that the command stops when the first signal comes: to stop takes seconds, where Ray starts or ends.

    Args:
        say: prints a message.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *STATUSES)}
    told = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if not _counts(number):
            return
        if not told:
            told = True
            with suppress(Exception):  # the terminal may be closed, or in the middle of another message
                say(STOPPING)
        if number in STATUSES:
            _interrupt(number)
        signal.default_int_handler(number, frame)

    own = [number for number, handler in handlers.items() if handler in (_stop, signal.default_int_handler)]
    for number in own:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in own:
            signal.signal(number, handlers[number])


def end_at_once() -> None:
    """Make SIGTERM end this process at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ending() -> tuple[str, ExitCode]:
    """Return the message about an interrupt, and the exit status, by the first signal that told the command to stop."""
    by, status = "", ExitCode.INTERRUPTED
    if _told_by:
        by, status = f" by {_told_by[0].name}", STATUSES[_told_by[0]]
    return f"interrupted{by}; finished stages are kept. Run the same command again to go on.", status


def _send_again(dropped: "sys.UnraisableHookArgs") -> None:
    """Send the signal of an interrupt that Python has dropped once more; report any other error as Python does."""
    error = dropped.exc_value
    if not isinstance(error, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    number = error.args[0] if isinstance(error, StoppedError) else signal.SIGINT
    _came.pop(number, None)
    again = threading.Timer(AGAIN_AFTER, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _counts(number: int) -> bool:
    """Tell whether a signal is more than the repetition of one that has just come."""
    now = time.monotonic()
    if now - _came.get(number, -math.inf) < AS_ONE:
        return False
    _came[number] = now
    return True


def _stop(number: int, _: FrameType | None) -> None:
    if _counts(number):
        _interrupt(number)


def _interrupt(number: int) -> NoReturn:
    _told_by.append(signal.Signals(number))
    raise StoppedError(number)
