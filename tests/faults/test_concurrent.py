"""Several runs of one sweep at once share its work."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from orchestrator.engine.run import resolve
from orchestrator.engine.worker.execute import StageWorker
from orchestrator.plan.plan import make_plan
from orchestrator.results.tables.write import collect
from orchestrator.spec import read_spec
from orchestrator.stages.context.failures import Status
from orchestrator.store.claims import Claim
from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys
from tests.faults.conftest import NewSweep
from tests.faults.driving import Command, ntksweep, wait_until
from tests.faults.journal_proof import prove_nothing_was_computed_twice
from tests.faults.tables import assert_same_tables

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("faults")]


def shared_out(spec: Path, runs: list[Command], expected: dict[str, pa.Table]) -> list[int]:
    """Wait for runs of one sweep, check what they leave, and return how many stages each computed."""
    computed = []
    for run in runs:
        answer = run.wait()
        assert answer.status == 0, answer.output
        facts = json.loads(answer.output[answer.output.index("{") :])
        assert facts["cells_in_tables"] == facts["cells"] == len(expected["cells"])
        assert facts["failures"] == []
        computed.append(facts["computed"])
    results = spec.parent / "results"
    assert_same_tables(results, expected)
    proof = prove_nothing_was_computed_twice(results)
    assert proof.cut_short == 0
    assert sum(computed) == proof.finished.total()
    assert list((results / "claims").iterdir()) == []
    assert not [path for path in results.rglob(".*") if path.is_file()]
    status = ntksweep("status", results, "--verify", folder=spec.parent)
    assert status.status == 0, status.output
    return computed


@pytest.mark.parametrize("n_runs", [2, 3])
def test_runs_that_start_together_share_the_work(
    n_runs: int, new_sweep: NewSweep, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    runs = [Command("run", spec, "--executor", "inline", "--json", folder=spec.parent) for _ in range(n_runs)]
    shared_out(spec, runs, expected)


def test_a_run_that_joins_later_does_a_part_and_leaves_the_first_its_own(
    new_sweep: NewSweep, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    first = Command("run", spec, "--executor", "inline", "--json", folder=spec.parent)
    assert first.wait_for_events(20)
    first.pause()  # perhaps in the middle of a stage, which stays its own
    second = Command("run", spec, "--executor", "inline", "--json", folder=spec.parent)
    wait_until(lambda: "finished" in second.events())
    first.resume()
    assert all(shared_out(spec, [first, second], expected)), "each did a part"


@pytest.mark.ray
def test_a_run_with_ray_and_one_without_share_the_work(new_sweep: NewSweep, expected: dict[str, pa.Table]) -> None:
    spec = new_sweep()
    ray = Command("run", spec, "--executor", "ray", "--workers", "2", "--json", folder=spec.parent)
    assert ray.wait_for_events(8)
    inline = Command("run", spec, "--executor", "inline", "--json", folder=spec.parent)
    shared_out(spec, [ray, inline], expected)


def test_one_of_two_runs_is_killed_and_the_other_finishes_its_work(
    new_sweep: NewSweep, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    killed, other = (Command("run", spec, "--executor", "inline", "--json", folder=spec.parent) for _ in range(2))
    assert killed.wait_for_events(30)
    killed.kill()
    answer = other.wait()
    assert answer.status == 0, answer.output
    assert_same_tables(killed.results, expected)
    prove_nothing_was_computed_twice(killed.results)


def test_tables_wait_for_another_run_that_writes_them(
    new_sweep: NewSweep, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ResultsFolder(new_sweep().parent / "results")
    shutil.copytree(undisturbed, folder.root, ignore=shutil.ignore_patterns("tables"))
    sweep = folder.existing()
    plan = make_plan(sweep, surveys(sweep, folder.artifacts()))
    other = folder.claims()
    claim = other.take("tables")
    assert claim is not None
    seen = []

    def sleep(_: float) -> None:
        seen.append(folder.tables.exists())
        other.release(claim)

    monkeypatch.setattr("orchestrator.results.tables.write.time", SimpleNamespace(sleep=sleep))
    assert collect(plan, folder) == plan.n_cells
    assert seen == [False], "it waited once, and had written nothing before"


def test_a_stage_that_another_run_finishes_between_look_and_claim_is_not_computed_again(
    new_sweep: NewSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_spec(new_sweep())
    folder = ResultsFolder(spec.folder)
    sweep = resolve(spec, Path(), folder)
    stage = make_plan(sweep, surveys(sweep, folder.artifacts())).stages[0]
    mine, other = StageWorker(sweep, folder), StageWorker(sweep, folder)
    take = mine._claims.take

    def late(stage_id: str) -> Claim | None:
        assert other.execute(stage).status is Status.FINISHED
        return take(stage_id)

    monkeypatch.setattr(mine._claims, "take", late)
    assert mine.execute(stage).status is Status.EXISTING
    assert [event["event"] for event in read_journals(folder.journals)] == ["started", "finished"]
    assert list((folder.root / "claims").iterdir()) == []


def test_every_run_says_in_its_journal_when_it_began_and_ended(new_sweep: NewSweep) -> None:
    spec = new_sweep()
    ntksweep("run", spec, "--executor", "inline", folder=spec.parent)
    phases = [event["phase"] for event in read_journals(spec.parent / "results" / "journal") if event["event"] == "run"]
    assert phases == ["began", "ended"]
