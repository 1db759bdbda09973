"""Sweeps whose rows stay in memory, killed and divided among workers: the tables of an undisturbed run."""

import os
import random
import signal
import time
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.spec import read_spec
from orchestrator.store.journal import read_journals
from tests.faults.conftest import SWEEP, NewSweep
from tests.faults.driving import Command, count_events, ntksweep
from tests.faults.journal_proof import prove_nothing_was_computed_twice
from tests.faults.tables import assert_same_tables, numbers
from tests.orchestrator.sweeps import make_sweep, run_spec

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("resident")]

RESIDENT = {"grid.layer_sets": ["each_layer", "all_layers"], "compute.rows": "resident"}
SEED = os.environ["NTKSWEEP_KILL_SEED"]


@pytest.fixture(scope="module")
def finished(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of an undisturbed run."""
    spec = make_sweep(tmp_path_factory.mktemp("resident"), SWEEP | RESIDENT, model=shared / "model")
    run_spec(spec)
    return read_spec(spec).folder


@pytest.fixture(scope="module")
def expected_here(finished: Path) -> dict[str, pa.Table]:
    return numbers(finished)


@pytest.mark.parametrize("number", range(max(1, int(os.environ.get("NTKSWEEP_KILLS", "5")) // 10)))
def test_a_killed_stage_costs_itself_alone(
    number: int, new_sweep: NewSweep, finished: Path, expected_here: dict[str, pa.Table]
):
    spec = new_sweep(RESIDENT)
    event = random.Random(f"{SEED} resident {number}").randint(6, count_events(finished) - 12)
    print(f"NTKSWEEP_KILL_SEED={SEED}: killed after event {event}")
    run = Command("run", spec, folder=spec.parent)
    assert run.wait_for_events(event)
    run.kill()
    assert run.wait().status in (-signal.SIGKILL, 0)
    before = sorted((run.results / "artifacts" / "gram").glob("*.json"))
    times = [path.stat().st_mtime_ns for path in before]
    time.sleep(0.01)
    answer = ntksweep("run", spec, "--executor", "inline", folder=spec.parent)
    assert answer.status == 0, answer.output
    assert [path.stat().st_mtime_ns for path in before] == times
    assert_same_tables(run.results, expected_here)
    prove_nothing_was_computed_twice(run.results)


@pytest.mark.ray
def test_workers_have_a_seed_each_and_give_the_same_tables(new_sweep: NewSweep, expected_here: dict[str, pa.Table]):
    spec = new_sweep(RESIDENT)
    answer = ntksweep("run", spec, "--executor", "ray", "--workers", "2", folder=spec.parent)
    assert answer.status == 0, answer.output
    results = spec.parent / "results"
    assert_same_tables(results, expected_here)
    workers: defaultdict[str, set[str]] = defaultdict(set)
    plan = run_spec(spec).plan
    key_of = {stage.stage_id: stage.together.key for stage in plan.stages if stage.together}
    for event in read_journals(results / "journal"):
        if event.get("stage") in key_of:
            workers[key_of[event["stage"]]].add(event["journal"])
    assert len(workers) == 2
    assert all(len(each) == 1 for each in workers.values())
