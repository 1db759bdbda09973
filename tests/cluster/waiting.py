"""Waiting for what a cluster does by itself."""

import time
from collections.abc import Callable

SECONDS = 60
"""What is waited for takes a few seconds, more on a busy machine."""


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; fail if it does not within a minute."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"not within {SECONDS} s"
        time.sleep(0.05)
