"""Status of a sweep: every stage and every cell counted once, with facts about unfinished ones."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engine.worker.execute import provenance
from orchestrator.plan.index import PlanIndex, index_of
from orchestrator.plan.plan import Plan
from orchestrator.results.status import Count, State, Status, status_of
from orchestrator.results.tables.manifest import PART, write_manifest
from orchestrator.store.claims import STALE_AFTER, ClaimBook
from orchestrator.store.history import History
from orchestrator.store.stage import Stage
from orchestrator.store.training_progress import ProgressFile
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import plan_of

GRID = {"grid.seeds": [0, 1], "grid.lambdas": {"values": [0.1, 1.0, 10.0]}, "compute.shard_examples": 16}
"""2 seeds, 3 layer sets, 3 lambdas, 18 cells; per seed a dataset, a trial, two captures, two tiles, three solves."""


class Sweep:
    """A sweep whose stages tests put into any state."""

    def __init__(self, folder: Path) -> None:
        self.plan: Plan = plan_of(GRID)
        self.index: PlanIndex = index_of(self.plan)
        self.folder = ResultsFolder(folder)
        self.journal = self.folder.journal()

    def stages(self, kind: str) -> list[Stage]:
        return [stage for stage in self.plan.stages if stage.kind == kind]

    def finish(self, *stages: Stage, seconds: float = 1.0) -> None:
        for stage in stages:
            self.folder.artifacts().publish(stage, {}, provenance(stage, 1, seconds))
            self.write("finished", stage, seconds=seconds)

    def fail(self, stage: Stage, failure: str = "code", message: str = "why") -> None:
        self.write("started", stage)
        self.write("failed", stage, failure=failure, message=message)

    def write(self, event: str, stage: Stage, **facts: Any) -> None:
        self.journal.write(event, kind=stage.kind, stage=stage.stage_id, **facts)

    def claim(self, stage: Stage, **holder: Any) -> None:
        """Let a stage be computed by a process of another machine, unless `holder` says otherwise."""
        book = self.folder.claims()
        book.process |= {"host": "node1", "process": 1, **holder}
        assert book.take(stage.stage_id) is not None

    def status(self, **options: Any) -> Status:
        return status_of(self.index, self.folder, **options)


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    yield Sweep(tmp_path / "results")


def by_name(counts: tuple[Count, ...]) -> dict[str | float, tuple[int, ...]]:
    return {count.name: (count.finished, count.running, count.failed, count.missing) for count in counts}


def test_a_sweep_that_has_not_begun_is_missing(sweep: Sweep):
    found = sweep.status()
    assert by_name(found.kinds) == {
        "dataset": (0, 0, 0, 2), "batching": (0, 0, 0, 2), "capture": (0, 0, 0, 4), "gram": (0, 0, 0, 4),
        "solve": (0, 0, 0, 6),
    }  # fmt: skip
    assert by_name(found.layer_sets) == dict.fromkeys(("layers:0", "layers:1", "layers:0-1"), (0, 0, 0, 6))
    assert by_name(found.lambdas) == dict.fromkeys((0.1, 1.0, 10.0), (0, 0, 0, 6))
    assert (found.cells, found.cells_finished, found.cells_in_tables, found.complete) == (18, 0, 0, False)
    assert (found.computing, found.failures, found.workers) == ((), (), 0)


def test_every_stage_and_cell_counts_once_whatever_is_told_of_it(sweep: Sweep):
    done, running, failed, again = sweep.stages("solve")[:4]
    for stage in (done, running, failed, again):
        sweep.fail(stage)
    sweep.finish(done)
    sweep.claim(done)
    sweep.claim(running)
    sweep.write("started", again)  # and its process died
    found = sweep.status()
    assert by_name(found.kinds)["solve"] == (1, 1, 1, 3)
    # solves come seed after seed, layer set after layer set
    assert by_name(found.layer_sets) == {"layers:0": (3, 0, 0, 3), "layers:1": (0, 3, 0, 3), "layers:0-1": (0, 0, 3, 3)}
    assert by_name(found.lambdas) == dict.fromkeys((0.1, 1.0, 10.0), (1, 1, 1, 3))
    for count in (*found.kinds, *found.layer_sets, *found.lambdas):
        assert count.planned == count.finished + count.running + count.failed + count.missing
    assert sum(count.planned for count in found.layer_sets) == sum(c.planned for c in found.lambdas) == found.cells
    assert [event["stage"] for event in found.failures] == [failed.stage_id]


def test_what_other_grids_left_is_not_counted(sweep: Sweep):
    others = plan_of(GRID | {"grid.seeds": [7]}).stages
    solves = [stage for stage in others if stage.kind == "solve"]
    sweep.finish(solves[0])
    sweep.claim(solves[1])
    sweep.fail(solves[2])
    found = sweep.status()
    assert by_name(found.kinds)["solve"] == (0, 0, 0, 6)
    assert (found.computing, found.failures, found.workers) == ((), (), 0)


def test_a_failed_stage_says_which_cells_wait_for_it(sweep: Sweep):
    sweep.fail(sweep.stages("solve")[4], "out of memory", "too large")
    sweep.fail(sweep.stages("gram")[0], "input", "NaN")
    of_solve, of_gram = sweep.status().failures
    assert (of_solve["failure"], of_solve["message"]) == ("out of memory", "too large")
    assert (of_solve["layer_sets"], of_solve["seed"], of_solve["n_train"]) == (["layers:1"], 1, 10)
    assert (of_gram["kind"], of_gram["failure"]) == ("gram", "input")
    assert "layer_sets" not in of_gram


def test_who_computes_is_told_by_host_process_and_job(sweep: Sweep):
    first, second, third = sweep.stages("capture")[:3]
    before = time.time()
    sweep.claim(first, slurm_job="12_3")
    sweep.claim(second, slurm_job="12_3", process=2)
    sweep.claim(third, host="node2", slurm_job=None)
    found = sweep.status()
    assert {(one.kind, one.stage, one.host, one.process, one.job) for one in found.computing} == {
        ("capture", first.stage_id, "node1", 1, "12_3"),
        ("capture", second.stage_id, "node1", 2, "12_3"),
        ("capture", third.stage_id, "node2", 1, None),
    }
    assert all(one.since is not None and before - 1 < one.since < time.time() + 1 for one in found.computing)
    assert found.workers == 3


def test_a_claim_without_a_sign_of_life_counts_for_nothing(sweep: Sweep, monkeypatch: pytest.MonkeyPatch):
    sweep.claim(sweep.stages("solve")[0])
    assert by_name(sweep.status().kinds)["solve"] == (0, 1, 0, 5)
    monkeypatch.setattr("orchestrator.store.claims.STALE_AFTER", -STALE_AFTER)
    found = sweep.status()
    assert by_name(found.kinds)["solve"] == (0, 0, 0, 6)
    assert found.workers == 0


def test_a_claim_that_a_power_cut_emptied_is_somebodys(sweep: Sweep):
    stage = sweep.stages("solve")[0]
    sweep.claim(stage)
    next((sweep.folder.root / "claims").glob(f"{stage.stage_id}.*")).write_bytes(b"")
    found = sweep.status()
    assert by_name(found.kinds)["solve"] == (0, 1, 0, 5)
    assert [(one.host, one.process, one.job) for one in found.computing] == [(None, None, None)]


def test_the_time_left_is_what_stages_took_times_those_left_over_workers(sweep: Sweep):
    found = sweep.status()
    assert (found.worker_seconds, found.seconds_left) == (None, None)
    assert found.unmeasured == ("dataset", "batching", "capture", "gram", "solve")
    sweep.finish(*sweep.stages("dataset"), *sweep.stages("batching"), *sweep.stages("capture"))
    sweep.finish(*sweep.stages("gram")[:2], seconds=5.0)
    found = sweep.status()
    assert (found.worker_seconds, found.unmeasured) == (None, ("solve",))
    sweep.finish(sweep.stages("solve")[0], seconds=10.0)
    sweep.finish(sweep.stages("solve")[1], seconds=20.0)
    found = sweep.status()
    assert found.worker_seconds == 2 * 5.0 + 4 * 15.0
    assert found.seconds_left is None  # nobody computes
    sweep.claim(sweep.stages("solve")[2])
    sweep.claim(sweep.stages("solve")[3], process=2)
    found = sweep.status()
    assert (found.worker_seconds, found.seconds_left) == pytest.approx((70.0, 35.0), abs=2.0)  # less what is done
    assert found.worker_seconds is not None
    assert found.worker_seconds < 70.0
    sweep.fail(sweep.stages("solve")[5])
    assert sweep.status().worker_seconds == pytest.approx(70.0 - 15.0, abs=2.0)


def test_the_time_left_is_there_from_the_first_stage_on(sweep: Sweep):
    estimates = {"capture": 3.0, "gram": 5.0, "solve": 10.0}
    sweep.journal.write("run", phase="began", estimates=estimates)
    sweep.finish(sweep.stages("dataset")[0], seconds=0.01)
    found = sweep.status()
    assert found.worker_seconds == pytest.approx(4 * 3.0 + 4 * 5.0 + 6 * 10.0, abs=0.1)
    assert found.unmeasured == ()
    assert found.elapsed is not None
    assert 0 <= found.elapsed < 60


def test_a_training_that_runs_says_how_far_it_is(sweep: Sweep):
    stage = sweep.stages("solve")[0]
    file = ProgressFile(sweep.folder.training / f"{stage.stage_id}.json", "fine-tuned", steps=10, epochs=5)
    file.stepped(4, {0: 0.5})
    assert sweep.status().computing == ()  # a file that a killed worker has left says nothing
    sweep.claim(stage)
    (one,) = sweep.status().computing
    assert one.training is not None
    assert (one.training.step, one.training.epoch, one.training.losses) == (4, 2.0, {0: 0.5})
    assert (one.running.done, one.running.begun_with) == (0.4, 0.3)
    facts = json.loads(json.dumps(sweep.status().to_json(), allow_nan=False))
    assert facts["computing"][0]["training"]["epoch"] == 2.0


def test_a_process_that_holds_two_claims_is_one_worker(sweep: Sweep):
    for stage in sweep.stages("solve")[:2]:
        sweep.claim(stage)
    assert sweep.status().workers == 1


def test_nothing_is_left_when_every_cell_is_finished_whatever_was_deleted_below(sweep: Sweep):
    sweep.finish(*sweep.stages("solve"))
    found = sweep.status()
    assert (found.worker_seconds, found.seconds_left, found.unmeasured) == (0.0, 0.0, ())
    assert found.cells_finished == 18
    assert not found.complete  # the tables are not written yet


def test_the_tables_of_another_grid_do_not_count(sweep: Sweep):
    part = sweep.folder.tables / "cells" / PART
    part.parent.mkdir(parents=True)
    part.write_bytes(b"rows")
    entry = {"rows": 18, "bytes": 4, "algorithm": "xxh128", "checksum": 32 * "0"}
    manifest = {"plan": sweep.plan.plan_id, "complete": True, "tables": {"cells": entry}}
    write_manifest(sweep.folder, manifest)
    assert sweep.status().cells_in_tables == 18
    assert sweep.status().complete
    write_manifest(sweep.folder, manifest | {"plan": "another"})
    assert sweep.status().cells_in_tables == 0


def test_a_later_look_reads_on_where_the_earlier_ended(sweep: Sweep):
    history = History(sweep.folder.journals)
    sweep.finish(sweep.stages("solve")[0])
    assert sweep.status(history=history) == sweep.status()
    sweep.fail(sweep.stages("solve")[1])
    sweep.finish(sweep.stages("solve")[2], seconds=3.0)
    assert sweep.status(history=history) == sweep.status()


def test_a_stage_that_is_finished_while_one_looks_never_counts_as_missing(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
):
    stage = sweep.stages("solve")[0]
    sweep.claim(stage)
    held = ClaimBook.held

    def finished_just_before(self: ClaimBook) -> dict[str, dict[str, Any]]:
        sweep.finish(stage)
        next(self.root.glob(f"{stage.stage_id}.*")).unlink()
        return held(self)

    monkeypatch.setattr(ClaimBook, "held", finished_just_before)
    assert by_name(sweep.status().kinds)["solve"] == (1, 0, 0, 5)


def test_the_json_holds_everything_and_adds_up(sweep: Sweep):
    sweep.finish(sweep.stages("solve")[0])
    sweep.claim(sweep.stages("solve")[1])
    sweep.fail(sweep.stages("solve")[2])
    facts = json.loads(json.dumps(sweep.status().to_json(), allow_nan=False))
    assert [kind["kind"] for kind in facts["kinds"]] == ["dataset", "batching", "capture", "gram", "solve"]
    assert [count["layer_set"] for count in facts["layer_sets"]] == ["layers:0", "layers:1", "layers:0-1"]
    assert [count["lambda"] for count in facts["lambdas"]] == [0.1, 1.0, 10.0]
    for count in (*facts["kinds"], *facts["layer_sets"], *facts["lambdas"]):
        assert count["planned"] == sum(count[state] for state in State)
    assert facts["computing"][0]["host"] == "node1"
    assert facts["failures"][0]["message"] == "why"
    assert (facts["seconds_left"], facts["worker_seconds"], facts["complete"]) == (None, None, False)


def test_somebody_who_may_only_look_is_told_how_it_stands(sweep: Sweep, monkeypatch: pytest.MonkeyPatch):
    sweep.claim(sweep.stages("solve")[0])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "touch", refuse)  # modes do not stop root, as whom tests may run
    assert by_name(sweep.status().kinds)["solve"] == (0, 1, 0, 5)
