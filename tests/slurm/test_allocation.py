"""Allocations that are told to stop, and those whose Ray does not start."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import pytest
from submitit.core.utils import UncompletedJobError

from slurm.ray.cluster import NotWantedError, RaySettings, RayStartError
from slurm.submit import allocation
from slurm.submit.allocation import MOST_STARTS, Allocation, AllocationFailedError, Ending
from tests.slurm.programs import Programs

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


class Starts:
    """Ray over the nodes whose first starts end in known ways, and the next succeed."""

    def __init__(self, *ends: Exception) -> None:
        self.made = 0
        self._ends = list(ends)
        self.environment: dict[str, str] = {}
        self.logs = Path("/nowhere")
        self.ended_nodes: tuple[str, ...] = ()
        self.out_of_memory: set[str] = set()

    def __call__(self, settings: RaySettings, logs: Path, *, wanted: Callable[[], bool]) -> "Starts":
        self.made += 1
        self._wanted = wanted
        return self

    def __enter__(self) -> "Starts":
        if self._ends:
            raise self._ends.pop(0)
        if not self._wanted():
            raise NotWantedError("not wanted")
        return self

    def __exit__(self, *_: object) -> None: ...

    def poll(self) -> list[object]:
        return []


@pytest.fixture
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n1"}.items():
        monkeypatch.setenv(name, value)


WORKS = Allocation(driver=("true",), cleanup=("true",), ray=RAY, logs="/nowhere", signal_seconds=60)


@pytest.mark.usefixtures("in_a_job", "requeued")
def test_a_start_in_which_ray_gives_up_is_tried_again_a_few_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gave_up = [RayStartError("Ray did not start on node n1", passes=True) for _ in range(MOST_STARTS)]
    starts = Starts(*gave_up[:-1])
    monkeypatch.setattr(allocation, "RayCluster", starts)
    assert WORKS() == "done"
    said = capsys.readouterr().err
    assert (starts.made, said.count("Ray did not start on node n1")) == (MOST_STARTS, MOST_STARTS - 1)
    assert f"starting again (1 of {MOST_STARTS - 1})" in said

    starts = Starts(*gave_up)
    monkeypatch.setattr(allocation, "RayCluster", starts)
    with pytest.raises(AllocationFailedError, match=f"at each of {MOST_STARTS} starts, .* `ntksweep resume`"):
        WORKS()
    assert starts.made == MOST_STARTS


@pytest.mark.usefixtures("in_a_job", "requeued")
def test_a_start_that_cannot_succeed_or_stands_still_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(RayStartError("Ray was not alive on node n1 after 180 s"))
    monkeypatch.setattr(allocation, "RayCluster", starts)
    with pytest.raises(RayStartError, match="after 180 s"):
        WORKS()
    assert starts.made == 1


@pytest.mark.usefixtures("in_a_job")
def test_an_allocation_that_is_told_to_stop_while_ray_starts_is_queued_again(
    monkeypatch: pytest.MonkeyPatch, requeued: list[int]
) -> None:
    class Told(Starts):
        def __enter__(self) -> Starts:
            os.kill(os.getpid(), signal.SIGUSR2)
            return super().__enter__()

    monkeypatch.setattr(allocation, "RayCluster", Told())
    assert WORKS() == "unfinished"
    assert requeued == [signal.SIGUSR2]


class Killed(BaseException):
    """The end of a process that waits to be killed."""


@pytest.mark.usefixtures("in_a_job", "requeued")
@pytest.mark.parametrize("own", [None, "2"], ids=["first run of the job", "third run of the job"])
@pytest.mark.parametrize("end", ["lost", "no start", "driver failed"])
@pytest.mark.parametrize(
    ("slurm", "waits"),
    [
        ('echo "    {next}   "', True),
        ('echo "    {now}   "', False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False),
        ("exit 0", False),
    ],
    ids=["queued again", "runs", "gone", "says nothing"],
)
def test_what_is_left_of_a_job_that_slurm_has_queued_again_waits_to_be_killed(
    slurm: str, waits: bool, end: str, own: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", own)
    programs = Programs(tmp_path)
    programs.add("squeue", slurm.format(now=own or 0, next=int(own or 0) + 1))
    monkeypatch.setenv("PATH", f"{programs.folder}:/usr/bin:/bin")
    ends: list[Exception] = [RayStartError("Ray did not start on node n1", passes=end == "lost")] * MOST_STARTS
    monkeypatch.setattr(allocation, "RayCluster", Starts(*([] if end == "driver failed" else ends)))

    def killed() -> None:
        raise Killed

    monkeypatch.setattr("signal.pause", killed)
    with pytest.raises(Killed if waits else (AllocationFailedError, RayStartError)):
        replace(WORKS, driver=("false",))()
    assert programs.calls()[0] == "squeue --noheader --jobs=12 --Format=RestartCnt"
