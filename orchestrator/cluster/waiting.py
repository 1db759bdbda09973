"""Waiting for the allocations of a sweep with few queries of the scheduler."""

import time

from orchestrator.cluster.allocations import alive, allocations_of
from orchestrator.sweep.folder import ResultsFolder
from slurm.errors import CommandError
from slurm.pauses import Pauses

SHORTEST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds between queries of the scheduler: each pause is half as long again as the one before."""


def wait_for_allocations(folder: ResultsFolder, timeout: float | None) -> bool:
    """Wait until no allocation of a sweep is queued or running; return False if there still are some.

    Args:
        folder: the results folder.
        timeout: seconds after which to return; None waits for as long as it takes.

    Raises:
        SlurmError: the scheduler cannot be asked.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pauses = Pauses(SHORTEST_PAUSE, LONGEST_PAUSE, factor=1.5)
    while _may_be_alive(folder):
        if deadline is not None and time.monotonic() >= deadline:
            return False
        pause = pauses.take()
        time.sleep(pause if deadline is None else min(pause, max(0.0, deadline - time.monotonic())))
    return True


def _may_be_alive(folder: ResultsFolder) -> bool:
    try:
        return bool(alive(allocations_of(folder)))
    except CommandError as error:
        # In hours of waiting the Slurm controller may restart, which its jobs survive.
        if not error.passes:
            raise
        return True
