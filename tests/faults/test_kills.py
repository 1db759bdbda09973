"""Nothing lost, nothing twice: drivers, workers and daemons of Ray are killed at random moments; the sweep goes on.

One kill of each kind; with `NTKSWEEP_KILLS=200` so many in all. The moments are drawn from `NTKSWEEP_KILL_SEED`: unless
that is set, today's date, so that each day tries other ones. It stands at the head of pytest's report.
"""

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
from typing import NamedTuple

import psutil
import pyarrow as pa
import pytest

from orchestrator import load
from orchestrator.engine.executors import bundles, local_ray
from orchestrator.store.claims import ClaimBook
from tests.faults.conftest import NewSweep
from tests.faults.driving import Command, count_events, ntksweep, workers_of
from tests.faults.journal_proof import prove_nothing_was_computed_twice
from tests.faults.tables import assert_same_tables

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("kills")]

SEED = os.environ["NTKSWEEP_KILL_SEED"]
KILLS = int(os.environ.get("NTKSWEEP_KILLS", "5"))
SHARES = {"inline": 0.3, "driver": 0.2, "worker": 0.2, "raylet": 0.15, "gcs_server": 0.15}
NUMBER = {kind: max(1, int(share * KILLS)) for kind, share in SHARES.items()}


class Kill(NamedTuple):
    """One kill: of a worker or of a daemon of Ray, by the program's name, and its number among those of its kind."""

    of: str
    number: int

    def __str__(self) -> str:
        return f"{self.of} {self.number}"


RUNS = [
    [Kill(of, number) for of in ("worker", "raylet", "gcs_server") if number < NUMBER[of]]
    for number in range(max(NUMBER[of] for of in ("worker", "raylet", "gcs_server")))
]
"""The kills of each run that goes on by itself: Ray may be started again three times in a run."""


@dataclass
class Left:
    """Processes and files of Ray drivers at the moment when they were killed."""

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
    """Yield the remains of killed drivers; at the end none of their processes is alive."""
    noted = Left()
    yield noted
    # Ray's agents look for their head for a minute before they give up.
    _, alive = psutil.wait_procs(noted.processes, timeout=180)
    for folder in noted.folders:
        shutil.rmtree(folder, ignore_errors=True)  # a killed driver cannot, and nobody else may
    assert not alive


def moment(kill: str, first: int, last: int) -> tuple[int, float]:
    """Return a random moment of a run for a kill: an event of its journals, between two, and seconds after it."""
    draw = random.Random(f"{SEED} {kill}")
    event, pause = draw.randint(first, last), draw.uniform(0, 0.02)
    print(f"NTKSWEEP_KILL_SEED={SEED}: {kill} is killed {pause:.4f} s after event {event} of at most {last}")
    return event, pause


def moment_with_ray(kill: str, events: int) -> tuple[int, float]:
    """Return a random moment at which Ray's workers are at work, with so much left that a loss cannot go unnoticed."""
    return moment(kill, 2, events - 24)  # the first event is the driver's own, before it starts Ray


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
    """Return the number of events that a run of the sweep writes."""
    return count_events(undisturbed)


@pytest.mark.parametrize("number", range(NUMBER["inline"]))
def test_a_driver_that_computes_by_itself_is_killed(
    number: int, new_sweep: NewSweep, events: int, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    run = Command("run", spec, folder=spec.parent)
    event, pause = moment(f"inline {number}", 1, events - 1)
    assert run.wait_for_events(event)
    time.sleep(pause)
    run.kill()
    assert run.wait().status in (-signal.SIGKILL, 0)  # 0: it was done before the signal came
    goes_on_and_ends_as_if_nothing_had_been(spec, expected)
    assert not [path for path in run.results.rglob(".*") if path.is_file()]


def die_before_a_finished_stage_is_given_back() -> None:
    ClaimBook.release = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_middle_of_a_bundle() -> None:
    release, of_bundles = ClaimBook.release, []

    def die_at_the_second(self, claim):
        of_bundles.extend([claim] if len(self._held) > 1 else [])
        if len(of_bundles) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        release(self, claim)

    ClaimBook.release = die_at_the_second


def die_before_the_written_tables_are_given_back() -> None:
    release = ClaimBook.release

    def die_with_the_tables_alone(self, claim):
        # a slow run also writes tables in the middle of a bundle of stages, whose claims it holds
        if claim.stage_id == "tables" and len(list(self.root.iterdir())) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        release(self, claim)

    ClaimBook.release = die_with_the_tables_alone


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


def test_a_driver_is_killed_in_the_middle_of_a_bundle_and_what_was_published_of_it_stays(
    new_sweep: NewSweep, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    killed = Command("run", spec, "--executor", "inline", folder=spec.parent, prepare=die_in_the_middle_of_a_bundle)
    assert killed.wait().status == -signal.SIGKILL
    claimed = {path.stem for path in (killed.results / "claims").iterdir()}
    published = {path.stem for path in (killed.results / "artifacts" / "solve").glob("*.json")}
    assert len(published) >= 2
    assert len(claimed) >= 2
    assert len(claimed & published) == 1  # the one whose claim was to be given back
    goes_on_and_ends_as_if_nothing_had_been(spec, expected)


@pytest.mark.ray
@pytest.mark.parametrize("number", range(NUMBER["driver"]))
def test_a_driver_of_ray_is_killed_and_its_processes_die_by_themselves(
    number: int,
    new_sweep: NewSweep,
    events: int,
    expected: dict[str, pa.Table],
    left: Left,
) -> None:
    spec = new_sweep()
    run = Command("run", spec, "--executor", "ray", "--workers", "2", folder=spec.parent)
    event, pause = moment_with_ray(f"driver {number}", events)
    assert run.wait_for_events(event)
    time.sleep(pause)
    workers = [process for process in left.note(run.pid) if "Worker" in name_of(process)]
    assert workers
    run.kill()
    assert run.wait().status == -signal.SIGKILL
    # Its workers may still be at work: what they hold is waited for or taken over.
    goes_on_and_ends_as_if_nothing_had_been(spec, expected)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    nothing_is_left_of_the_killed(spec)


def name_of(process: psutil.Process) -> str:
    """Return the name of a process; empty if it has ended."""
    with suppress(psutil.Error):
        return process.name()
    return ""


def daemon(run: Command, program: str) -> psutil.Process | None:
    """Return the living process of a run's Ray that is this program."""
    with suppress(psutil.Error):
        for child in psutil.Process(run.pid).children():
            if child.name() == program and child.status() != psutil.STATUS_ZOMBIE:
                return child
    return None


def kill_worker(run: Command) -> bool:
    """Kill a worker of a run's Ray; tell whether there was one."""
    alive = workers_of(run.results, run.pid)
    if not alive:
        return False
    os.kill(random.Random(SEED).choice(alive), signal.SIGKILL)
    return True


def kill_daemon(run: Command, program: str) -> bool:
    """Kill a daemon of a run's Ray; tell whether there was one."""
    if (process := daemon(run, program)) is None:
        return False
    process.kill()
    psutil.wait_procs([process], timeout=0.1)
    return True


@pytest.mark.ray
@pytest.mark.parametrize("kills", RUNS, ids=lambda kills: " ".join(map(str, kills)))
def test_workers_and_daemons_of_ray_are_killed_and_the_run_goes_on_by_itself(
    kills: list[Kill], new_sweep: NewSweep, events: int, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    run = Command("run", spec, "--executor", "ray", "--workers", "2", folder=spec.parent)
    killed = []
    for (event, pause), kill in sorted((moment_with_ray(str(kill), events), kill) for kill in kills):
        assert run.wait_for_events(event)
        time.sleep(pause)
        if kill_worker(run) if kill.of == "worker" else kill_daemon(run, kill.of):
            killed.append(kill)
    answer = run.wait()
    assert answer.status == 0, answer.output
    assert killed
    if len(killed) == len(kills) and {kill.of for kill in kills} & {"raylet", "gcs_server"}:
        assert "node lost; trying again" in answer.output
    assert_same_tables(run.results, expected)
    prove_nothing_was_computed_twice(run.results)
    nothing_is_left_of_the_killed(spec)


def never_start_ray_again() -> None:
    local_ray.MOST_RESTARTS = 0
    bundles.MOST_TASKS_A_CALL = 1  # the last stages one by one, so that the loss comes in between


@pytest.mark.ray
def test_a_run_whose_ray_is_killed_too_often_says_so_and_writes_the_tables(
    new_sweep: NewSweep, events: int, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    run = Command("run", spec, "--executor", "ray", folder=spec.parent, prepare=never_start_ray_again)
    assert run.wait_for_events(2)
    process = daemon(run, "raylet")  # looked for beforehand: the last stages take less time than that
    assert process is not None
    assert run.wait_for_events(events - 13)
    process.kill()
    answer = run.wait()
    assert answer.status == 5
    assert "error: Ray's raylet was killed 1 times in this run, perhaps because this machine has" in answer.output
    assert "run the same command again" in answer.output
    assert "Traceback" not in answer.output
    # stages that were begun end meanwhile, at times the last ones
    assert 0 < len(load(run.results).cells) <= len(expected["cells"])
    goes_on_and_ends_as_if_nothing_had_been(spec, expected)
