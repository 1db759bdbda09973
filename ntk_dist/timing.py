"""Times of functions, from the fastest of a few calls."""

import time
from collections.abc import Callable

_TIMES = 5


def fastest(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the least of five times of a function by a clock, in seconds, after it was called once."""
    function()
    found = []
    for _ in range(_TIMES):
        started = clock()
        function()
        found.append(clock() - started)
    return max(min(found), 1e-9)


def processor_clock(threads: int) -> Callable[[], float]:
    """Return a clock of this process's time on each of some processors; what other programs take does not count."""
    return lambda: time.process_time() / threads
