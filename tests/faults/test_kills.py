"""Nothing lost, nothing twice: drivers and workers are killed at random moments of a sweep, which then goes on."""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from orchestrator.store.claims import ClaimBook
from tests.faults.conftest import NewSweep
from tests.faults.driving import Command, count_events, ntksweep, workers_of
from tests.faults.journal_proof import prove_nothing_was_computed_twice
from tests.faults.tables import assert_same_tables

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("kills")]

INLINE_DRIVERS, RAY_DRIVERS, RAY_WORKERS = 15, 4, 6  # 25 moments


@dataclass
class Left:
    """What drivers of Ray had started and made when they were killed."""

    processes: list[psutil.Process] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)

    def note(self, driver: int) -> list[psutil.Process]:
        """Note, and return, the processes of a driver that is about to be killed, and the folders they know of."""
        started = psutil.Process(driver).children(recursive=True)
        self.processes += started
        for process in started:
            with suppress(psutil.Error):
                known = " ".join([*process.cmdline(), *process.environ().values()])
                self.folders |= set(re.findall(r"/[^\s=]*/ntksweep-(?:ray|token)-\w+", known))
        return started


@pytest.fixture(scope="module")
def left() -> Iterator[Left]:
    """What killed drivers leave; in the end no process of it is alive."""
    noted = Left()
    yield noted
    # Ray's agents look for their head for a minute before they give up.
    _, alive = psutil.wait_procs(noted.processes, timeout=180)
    for folder in noted.folders:
        shutil.rmtree(folder, ignore_errors=True)  # a killed driver cannot, and nobody else may
    assert not alive


def moment(seed: str, events: int) -> tuple[int, float]:
    """Return a random moment of a run: an event of its journals, and seconds after it."""
    draw = random.Random(seed)
    return draw.randint(1, events - 1), draw.uniform(0, 0.02)


def goes_on_and_ends_as_if_nothing_had_been(spec: Path, expected: dict[str, pa.Table]) -> None:
    answer = ntksweep("run", spec, "--executor", "inline", folder=spec.parent)
    assert answer.status == 0, answer.output
    assert_same_tables(spec.parent / "results", expected)
    prove_nothing_was_computed_twice(spec.parent / "results")
    assert list((spec.parent / "results" / "claims").iterdir()) == []


def nothing_is_left_of_the_killed(spec: Path) -> None:
    answer = ntksweep("run", spec, "--executor", "inline", folder=spec.parent)
    assert "the sweep was finished already; nothing to do" in answer.output
    assert not [path for path in (spec.parent / "results").rglob(".*") if path.is_file()]


@pytest.fixture(scope="module")
def events(undisturbed: Path) -> int:
    """How many events a run of the sweep writes."""
    return count_events(undisturbed)


@pytest.mark.parametrize("number", range(INLINE_DRIVERS))
def test_a_driver_that_computes_by_itself_is_killed(
    number: int, new_sweep: NewSweep, events: int, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    run = Command("run", spec, folder=spec.parent)
    event, pause = moment(f"inline {number}", events)
    assert run.wait_for_events(event)
    time.sleep(pause)
    run.kill()
    assert run.wait().status in (-signal.SIGKILL, 0)  # 0: it was done before the signal came
    goes_on_and_ends_as_if_nothing_had_been(spec, expected)
    assert not [path for path in run.results.rglob(".*") if path.is_file()]


def die_before_a_finished_stage_is_given_back() -> None:
    ClaimBook.release = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


def die_before_the_written_tables_are_given_back() -> None:
    release = ClaimBook.release
    ClaimBook.release = lambda self, claim: (
        os.kill(os.getpid(), signal.SIGKILL) if claim.stage_id == "tables" else release(self, claim)
    )


@pytest.mark.parametrize(
    "prepare", [die_before_a_finished_stage_is_given_back, die_before_the_written_tables_are_given_back]
)
def test_a_driver_is_killed_between_finishing_something_and_giving_its_claim_back(
    prepare: Callable[[], None], new_sweep: NewSweep, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    killed = Command("run", spec, "--executor", "inline", folder=spec.parent, prepare=prepare)
    assert killed.wait().status == -signal.SIGKILL
    assert len(list((killed.results / "claims").iterdir())) == 1
    goes_on_and_ends_as_if_nothing_had_been(spec, expected)


@pytest.mark.ray
@pytest.mark.parametrize("number", range(RAY_DRIVERS))
def test_a_driver_of_ray_is_killed_and_its_processes_die_by_themselves(
    number: int,
    new_sweep: NewSweep,
    events: int,
    expected: dict[str, pa.Table],
    left: Left,
) -> None:
    spec = new_sweep()
    run = Command("run", spec, "--executor", "ray", "--workers", "2", folder=spec.parent)
    event, pause = moment(f"ray {number}", events)
    assert run.wait_for_events(event)
    time.sleep(pause)
    workers = [process for process in left.note(run.pid) if "Worker" in process.name()]
    assert workers
    run.kill()
    assert run.wait().status == -signal.SIGKILL
    # Its workers may still be at work: what they hold is waited for or taken over.
    goes_on_and_ends_as_if_nothing_had_been(spec, expected)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    nothing_is_left_of_the_killed(spec)


@pytest.mark.ray
@pytest.mark.parametrize("numbers", [range(RAY_WORKERS // 2), range(RAY_WORKERS // 2, RAY_WORKERS)], ids=["a", "b"])
def test_workers_are_killed_and_the_run_goes_on_by_itself(
    numbers: range, new_sweep: NewSweep, events: int, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    run = Command("run", spec, "--executor", "ray", "--workers", "2", folder=spec.parent)
    killed = 0
    for event, pause in sorted(moment(f"worker {number}", events) for number in numbers):
        assert run.wait_for_events(event)
        time.sleep(pause)
        for worker in random.Random(event).sample(alive := workers_of(run.results, run.pid), min(1, len(alive))):
            os.kill(worker, signal.SIGKILL)
            killed += 1
    answer = run.wait()
    assert answer.status == 0, answer.output
    assert killed
    assert_same_tables(run.results, expected)
    prove_nothing_was_computed_twice(run.results)
    nothing_is_left_of_the_killed(spec)
