"""Limits of reading a damaged file: time, memory, and messages."""

import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from orchestrator.documents import LAST_RESORTS

MOST_SECONDS = 10
MOST_GROWTH_KB = 500 * 1024


class TooLongError(Exception):
    """Something took longer than it may."""


@contextmanager
def in_time() -> Iterator[None]:
    """Raise an error if what is done within takes too long, also if it would never end."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TooLongError(f"more than {MOST_SECONDS} s")

    # Of this process's own time, for others may keep the machine busy; who waits for ever takes none.
    clocks = {
        signal.SIGPROF: (signal.ITIMER_PROF, MOST_SECONDS),
        signal.SIGALRM: (signal.ITIMER_REAL, 20 * MOST_SECONDS),
    }
    before = {number: signal.signal(number, ring) for number in clocks}
    for timer, seconds in clocks.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _ in clocks.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def in_memory() -> Iterator[None]:
    """Fail if this process grows too much meanwhile."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_KB


_PLACED = re.compile(
    r"line \d|empty or not a mapping|it is UTF-16|none of its keys|the key `|^  \w+[.:_ ]|^  and \d+ more"
)
"""Words of a message that say where a fault is: a line, a key, or the file."""


def check_message(message: str, name: str) -> None:
    """Check that a message names the file and where in it, and comes from nobody's last resort."""
    assert name in message
    for fault in message.splitlines()[1:] or [message]:
        assert _PLACED.search(fault), fault
    assert "Traceback" not in message
    assert len(message) < 20_000
    for last_resort in LAST_RESORTS:
        assert last_resort not in message, message
    for of_a_library in ("Input should", "Value error", "Field required", "validation error", "yaml.", "pydantic"):
        assert of_a_library not in message, message
