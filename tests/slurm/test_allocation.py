"""Requeueing of an allocation that was told to stop."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import pytest
from submitit.core.utils import UncompletedJobError

from slurm.ray.cluster import RaySettings
from slurm.submit.allocation import Allocation, AllocationFailedError, Ending

RAY = RaySettings(
    workers_per_node=1, cpus_per_node=1, gpus_per_node=0, memory_bytes=10**9, object_store_bytes=10**8,
    local_scratch=Path("/tmp"), dashboard=False, python=("python3",),
)  # fmt: skip


@dataclass(frozen=True)
class Told(Allocation):
    """An allocation whose nodes and driver end in a known way, after Slurm has sent a signal."""

    ended: Ending = Ending.DONE
    by: signal.Signals | None = None

    def _run_once(self, told: object) -> Ending:
        if self.by is not None:
            os.kill(os.getpid(), self.by)
        return self.ended


@pytest.fixture
def requeued() -> Iterator[list[int]]:
    """The signals for which submitit was asked to queue the job again: its handler stands there before the work."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    signal.signal(signal.SIGUSR2, lambda number, _: asked.append(number))
    yield asked
    for number, handler in before.items():
        signal.signal(number, handler)


ALLOCATION = Told(driver=(), cleanup=(), ray=RAY, logs="", signal_seconds=60)


@pytest.mark.parametrize(
    ("ended", "told", "again"),
    [
        (Ending.UNFINISHED, signal.SIGUSR2, True),
        (Ending.DONE, signal.SIGUSR2, False),
        (Ending.UNFINISHED, signal.SIGTERM, False),
        (Ending.LOST, signal.SIGUSR2, True),
        (Ending.DONE, None, False),
    ],
)
def test_a_job_is_queued_again_where_its_time_ended_before_its_work(
    ended: Ending, told: signal.Signals | None, again: bool, requeued: list[int]
) -> None:
    said = replace(ALLOCATION, ended=ended, by=told)()
    assert requeued == ([signal.SIGUSR2] if again else [])
    assert said == ("unfinished" if ended is not Ending.DONE else "done")


def test_a_job_that_may_not_be_queued_again_says_how_to_go_on(requeued: list[int]) -> None:
    def refuse(number: int, frame: FrameType | None) -> None:
        raise UncompletedJobError("as often as it may")

    signal.signal(signal.SIGUSR2, refuse)
    with pytest.raises(AllocationFailedError, match="ntksweep resume"):
        replace(ALLOCATION, ended=Ending.UNFINISHED, by=signal.SIGUSR2)()
