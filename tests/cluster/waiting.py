"""Waiting for what a cluster does by itself."""

import time
from collections.abc import Callable

SECONDS = 300
"""Longest wait: everything takes seconds, or minutes on a busy machine; anything longer hangs."""


_PAUSE = 0.2
"""Seconds between two looks, most of which run a command on the cluster."""


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; fail if it does not in time."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"not within {SECONDS} s"
        time.sleep(_PAUSE)
