"""Ctrl-C and SIGTERM end a run cleanly: it says how to go on, and finished cells can be read."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

import orchestrator.engine.run
from orchestrator import load
from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder
from tests.faults.conftest import NewSweep
from tests.faults.driving import Command, count_events, ntksweep
from tests.faults.journal_proof import prove_nothing_was_computed_twice
from tests.faults.tables import assert_same_tables

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("faults")]


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def solved(results: Path) -> int:
    return len(list((results / "artifacts" / "solve").glob("[!.]*.json")))


def last_solve(results: Path) -> str:
    """Return the stage `solve` that was finished last, which has the same identity in every run of the sweep."""
    events = (event for event in read_journals(results / "journal") if event["event"] == "finished")
    return str([event["stage"] for event in events if event["kind"] == "solve"][-1])


@contextmanager
def held(results: Path, stage_id: str) -> Iterator[None]:
    """Keep a stage from being computed, as another run would that is at it."""
    claims = ResultsFolder(results).claims()
    claim = claims.take(stage_id)
    assert claim is not None
    try:
        yield
    finally:
        claims.release(claim)


@pytest.mark.parametrize(
    ("tell", "word", "status"),
    [
        (Command.interrupt, "", 130),
        (Command.terminate, " by SIGTERM", 143),
        (Command.terminate_all, " by SIGTERM", 143),
    ],
)
def test_an_interrupted_run_says_how_to_go_on_and_goes_on(
    executor: str,
    tell: Callable[[Command], None],
    word: str,
    status: int,
    new_sweep: NewSweep,
    undisturbed: Path,
    expected: dict[str, pa.Table],
) -> None:
    spec = new_sweep()
    # In the middle of the last kind of stage: some cells are finished, and one cannot be before the command is told.
    with held(spec.with_name("results"), last_solve(undisturbed)):
        run = Command("run", spec, "--executor", executor, "--workers", "2", folder=spec.parent)
        assert run.wait_for_events(count_events(undisturbed) - 7)
        tell(run)
        answer = run.wait()
    assert answer.status == status
    assert f"interrupted{word}; finished stages are kept. Run the same command again to go on." in answer.output
    assert "Traceback" not in answer.output

    n_cells = 3 * solved(run.results)
    assert 0 < n_cells < len(expected["cells"])
    assert_is_a_part_of(load(run.results).cells.to_arrow(expected["cells"].column_names), expected["cells"])
    assert len(load(run.results).cells) == n_cells
    assert list((run.results / "claims").iterdir()) == [] or executor == "ray"

    stands = ntksweep("status", run.results, "--json", folder=spec.parent)
    assert stands.status == 3, "unfinished, but nothing has failed"
    facts = json.loads(stands.output)
    assert facts["cells_finished"] == facts["cells_in_tables"] == n_cells
    assert facts["failures"] == []
    assert sum(kind["running"] for kind in facts["kinds"]) == 0

    again = ntksweep("run", spec, "--executor", "inline", folder=spec.parent)
    assert again.status == 0, again.output
    assert_same_tables(run.results, expected)
    prove_nothing_was_computed_twice(run.results)


def assert_is_a_part_of(part: pa.Table, whole: pa.Table) -> None:
    rows = {row["cell_id"]: row for row in whole.to_pylist()}
    assert all(repr(rows[row["cell_id"]]) == repr(row) for row in part.to_pylist())


def test_interrupted_before_anything_is_finished_there_are_empty_tables_and_the_run_goes_on(
    new_sweep: NewSweep, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    run = Command("run", spec, "--executor", "inline", folder=spec.parent)
    assert run.wait_for_events(2)
    run.interrupt()
    assert run.wait().status == 130
    assert len(load(run.results).cells) == 0
    assert ntksweep("run", spec, folder=spec.parent).status == 0
    assert_same_tables(run.results, expected)
    prove_nothing_was_computed_twice(run.results)


def test_an_interrupted_stage_is_released_not_failed(new_sweep: NewSweep) -> None:
    spec = new_sweep()
    run = Command("run", spec, "--executor", "inline", folder=spec.parent)
    assert run.wait_for_events(2)
    run.interrupt()
    run.wait()
    events = list(read_journals(run.results / "journal"))
    assert not [event for event in events if event["event"] == "failed"]
    assert [event["phase"] for event in events if event["event"] == "run"] == ["began", "stopped"]


def be_told_while_it_plans(number: int) -> None:
    def make_plan(*_: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    orchestrator.engine.run.make_plan = make_plan


def be_told_again_while_it_writes_tables(number: int) -> None:
    def collect(*_: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    orchestrator.engine.run.collect = collect


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=str,
)
def test_a_run_that_is_told_to_stop_while_it_plans_stops(new_sweep: NewSweep, number: int, status: int) -> None:
    spec = new_sweep()
    answer = ntksweep("run", spec, folder=spec.parent, prepare=partial(be_told_while_it_plans, number))
    assert answer.status == status
    assert "Run the same command again to go on." in answer.output
    assert "Traceback" not in answer.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_says_it_twice_does_not_wait_for_the_tables(new_sweep: NewSweep, number: int) -> None:
    spec = new_sweep()
    told_again = partial(be_told_again_while_it_writes_tables, number)
    run = Command("run", spec, "--executor", "inline", folder=spec.parent, prepare=told_again)
    assert run.wait_for_events(2)
    run.interrupt()
    answer = run.wait()
    assert answer.status == 128 + number
    assert "Traceback" not in answer.output
