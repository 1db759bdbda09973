"""The kept index of a plan: the same as the plan, and never taken for that of another sweep."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ResultsError
from orchestrator.plan.index import PlanIndex, index_of, keep_plan, plan_index
from orchestrator.plan.plan import Plan
from orchestrator.store.survey_kind import SURVEY
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import keep_surveys
from tests.orchestrator.sweeps import groups_of, ntksweep, plan_of, survey_of

GRIDS: list[dict[str, Any]] = [
    {},
    {"grid.seeds": [3, 0, 1], "grid.n_train": [6, 10]},
    # with 200 examples single layers are decomposed as features and come after the sets that are kernels
    {"grid.n_train": [8, 200], "kernel.outputs": "margin"},
    # several layer sets a stage
    {"grid.layer_sets": [{"subsets": 5}], "grid.seeds": [0, 1]},
]


def written(folder: Path, changes: dict[str, Any] | None = None) -> tuple[Plan, ResultsFolder]:
    """Return a plan and a results folder that holds its sweep and nothing else."""
    groups = groups_of(12 if changes and changes.get("grid.layer_sets") == [{"subsets": 5}] else 2, ("query", "value"))
    plan = plan_of(changes, survey=survey_of(groups=groups))
    results = ResultsFolder(folder)
    results.write(plan.sweep)
    keep_surveys(plan.sweep, [plan.variants[0].survey], results.artifacts())
    return plan, results


def refuse_planning(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("planned anew")

    monkeypatch.setattr("orchestrator.plan.plan.make_plan", never)


@pytest.mark.parametrize("changes", GRIDS, ids=str)
def test_the_kept_index_is_that_of_the_plan(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan, folder = written(tmp_path, changes)
    anew = plan_index(folder)
    keep_plan(plan, folder)
    refuse_planning(monkeypatch)
    assert plan_index(folder) == anew == index_of(plan, anew.key)
    assert anew.n_cells == plan.n_cells
    assert [solve.stage_id for solve in anew.solves] == [solve.stage.stage_id for solve in plan.solves]
    for indexed, solve in zip(anew.solves, plan.solves, strict=True):
        names = [anew.layer_sets[position] for position in indexed.layer_sets]
        assert names == [layer_set.name for layer_set in solve.layer_sets]
        assert (indexed.seed, indexed.n_train) == (solve.seed, solve.n_train)
    assert set(anew.kinds.items()) == {(stage.stage_id, stage.kind) for stage in plan.stages}


def test_a_run_keeps_the_index(finished: Path, monkeypatch: pytest.MonkeyPatch):
    folder = ResultsFolder(finished.parent / "results")
    assert folder.plan_path.is_file()
    refuse_planning(monkeypatch)
    assert ntksweep("status", folder.root).status == 0


def test_a_look_at_a_folder_without_index_plans_anew_and_writes_nothing(tmp_path: Path):
    plan, folder = written(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert plan_index(folder).plan_id == plan.plan_id
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "spoil", [lambda content: content[:-5], lambda content: content.replace(b"layers:0", b"layers:9")]
)
def test_a_damaged_index_is_not_believed(spoil: Any, tmp_path: Path):
    plan, folder = written(tmp_path)
    keep_plan(plan, folder)
    folder.plan_path.write_bytes(spoil(folder.plan_path.read_bytes()))
    assert plan_index(folder) == index_of(plan, plan_index(folder).key)


def test_the_index_of_another_spec_is_not_believed(tmp_path: Path):
    small, folder = written(tmp_path)
    keep_plan(small, folder)
    large, _ = written(tmp_path, {"grid.seeds": [0, 1]})
    assert plan_index(folder).n_cells == large.n_cells == 2 * small.n_cells
    keep_plan(small, folder)  # a slower run, whose spec was replaced in the meantime
    assert plan_index(folder).n_cells == large.n_cells


@pytest.mark.parametrize(
    ("name", "value"),
    [("VERSION", "99.0"), ("SURVEY", replace(SURVEY, version=99)), ("FORMAT", 99)],
)
def test_an_index_of_other_code_is_not_believed(name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan, folder = written(tmp_path)
    keep_plan(plan, folder)
    monkeypatch.setattr(f"orchestrator.plan.index.{name}", value)
    refuse_planning(monkeypatch)
    with pytest.raises(AssertionError, match="planned anew"):
        plan_index(folder)


def test_an_index_that_still_holds_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan, folder = written(tmp_path)
    keep_plan(plan, folder)
    known: PlanIndex = plan_index(folder)
    folder.plan_path.unlink()
    with monkeypatch.context() as patch:
        refuse_planning(patch)
        assert plan_index(folder, known) is known
    written(tmp_path, {"grid.seeds": [0, 1]})
    assert plan_index(folder, known).n_cells == 2 * known.n_cells


def test_a_stored_spec_that_was_edited_is_refused(tmp_path: Path):
    plan, folder = written(tmp_path)
    keep_plan(plan, folder)
    folder.spec_path.write_text(folder.spec_path.read_text().replace("n_eval: 6", "n_eval: 7"))
    with pytest.raises(ResultsError, match="was edited"):
        plan_index(folder)


def test_keeping_what_is_kept_already_writes_nothing(tmp_path: Path):
    plan, folder = written(tmp_path)
    keep_plan(plan, folder)
    before = folder.plan_path.stat()
    keep_plan(plan, folder)
    assert folder.plan_path.stat() == before
