"""The results folder: whose it is, and what happens when spec, data or model no longer fit what it holds."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.errors import ChangedError, ResultsError, SourceError, SweepError
from orchestrator.store.journal import read_journals
from orchestrator.sweep.blocks_asked import BlocksAsked
from orchestrator.sweep.differences import differences
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.on_change import OnChange
from tests.orchestrator.sweeps import (
    make_sweep,
    ntksweep,
    results_of,
    run_spec,
    sources_of,
    spec_of,
    sweep_of,
    write_data,
    write_spec,
)
from tests.tiny_models import save_tiny


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished sweep, its model and its data."""
    folder = tmp_path_factory.mktemp("template")
    run_spec(make_sweep(folder, {"results.folder": None, "name": "tiny"} | here(folder)))
    return folder


def here(folder: Path) -> dict[str, Any]:
    return {"results.folder": str(folder / "results")}


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it that a test may change; model and data lie somewhere else than when the sweep was run."""
    shutil.copytree(template, tmp_path / "place")
    write_spec(tmp_path / "place")
    yield tmp_path / "place"


def again(place: Path, changes: dict[str, Any] | None = None, on_change: OnChange = OnChange.REFUSE) -> Any:
    return run_spec(write_spec(place, changes), on_change=on_change)


def finished_stages(place: Path) -> list[str]:
    events = read_journals(place / "results" / "journal")
    return [event["stage"] for event in events if event["event"] == "finished"]


# --- what a folder holds


def test_an_empty_folder_holds_nothing(tmp_path: Path):
    assert ResultsFolder(tmp_path / "none").stored() is None
    (tmp_path / ".hidden").touch()
    assert ResultsFolder(tmp_path).stored() is None
    with pytest.raises(ResultsError, match=r"there are no results at .*`ntksweep run SPEC` makes them"):
        ResultsFolder(tmp_path).existing()


def test_a_sweep_is_read_back_as_it_was_written(tmp_path: Path):
    sweep = sweep_of({"task.template": "größe: {text}", "results.folder": "somewhere"})
    folder = ResultsFolder(tmp_path / "results")
    folder.write(sweep)
    assert folder.stored() == replace(sweep, drawn_before=(10,), blocks_asked=(BlocksAsked.by(sweep.spec),))
    written = folder.spec_path.stat().st_mtime_ns
    folder.write(sweep)
    assert folder.spec_path.stat().st_mtime_ns == written


def test_the_stored_spec_says_which_versions_ran_it(tmp_path: Path):
    folder = ResultsFolder(tmp_path / "results")
    folder.write(sweep_of())
    versions = yaml.safe_load(folder.spec_path.read_text())["versions"]
    assert {"ntksweep", "torch", "transformers", "numpy", "scipy"} <= versions.keys()


def test_a_stored_spec_that_was_edited_is_refused(place: Path):
    stored = place / "results" / "spec.yaml"
    stored.write_text(stored.read_text().replace("rank: 2", "rank: 4"))
    with pytest.raises(ResultsError, match=r"spec.yaml was edited.*edit your own spec and run that, or remove"):
        again(place)


@pytest.mark.parametrize("text", ["", "a: b", "not: [yaml", "spec: {name: x}\nsources: {}\nspec_hash: y"])
def test_a_stored_spec_that_cannot_be_read_is_refused(place: Path, text: str):
    (place / "results" / "spec.yaml").write_text(text)
    with pytest.raises(
        ResultsError, match=r"spec.yaml cannot be read .*restore it, or remove it and run the spec again"
    ):
        again(place)


def test_a_folder_of_other_things_is_not_taken(place: Path):
    foreign = place / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("...")
    with pytest.raises(ResultsError, match=r"thesis is not empty and holds no sweep .*name another results.folder"):
        again(place, {"results.folder": str(foreign)})
    assert [path.name for path in foreign.iterdir()] == ["chapter1.tex"]


def test_a_folder_of_another_sweep_is_not_taken(place: Path):
    with pytest.raises(ResultsError, match=r"holds the sweep `tiny`, not `other`; name another results.folder"):
        again(place, {"name": "other"})
    assert again(place).was_finished


def test_a_spec_that_is_refused_leaves_no_folder_behind(place: Path):
    elsewhere = {"results.folder": str(place / "new")}
    with pytest.raises(SweepError):
        again(place, elsewhere | {"adapter.target_modules": ["xyzzy"]})
    assert not (place / "new").exists()
    assert again(place, elsewhere).n_cells == 6


# --- the same sweep again


def test_a_finished_sweep_is_recognized_and_nothing_is_computed(place: Path):
    before = finished_stages(place)
    tables = (place / "results" / "tables" / "cells" / "part-0.parquet").read_bytes()
    ending = again(place)
    assert ending.was_finished
    assert ending.report.computed == 0
    assert finished_stages(place) == before
    assert (place / "results" / "tables" / "cells" / "part-0.parquet").read_bytes() == tables


@pytest.mark.parametrize(
    "change",
    [{"compute.memory_budget": "1GB"}, {"model.path": "./model"}, {"task.data": "./data.parquet"}],
    ids=str,
)
def test_what_is_no_number_may_change(place: Path, change: dict[str, Any]):
    assert again(place, change).was_finished


def test_moved_data_and_model_are_the_same_sweep(place: Path):
    shutil.move(place / "model", place / "moved")
    shutil.move(place / "data.parquet", place / "reviews.parquet")
    moved = {"model.path": "moved", "task.data": "reviews.parquet"}
    assert again(place, moved).was_finished
    # a further seed is computed from where they lie now
    ending = again(place, moved | {"grid.seeds": [0, 1]})
    assert not ending.report.failures
    assert ending.n_cells == 12


@pytest.mark.parametrize(
    ("change", "cells"),
    [
        ({"grid.seeds": [0, 1]}, 12),
        ({"grid.lambdas": {"values": [0.01, 0.1, 1.0], "scale": "trace"}}, 9),
        ({"grid.lambdas": {"values": [1.0], "scale": "absolute"}}, 3),
        ({"grid.layer_sets": ["each_layer", "all_layers", "each_target"]}, 10),
        ({"grid.layer_sets": ["all_layers"]}, 2),
        ({"grid.n_train": [6, 10]}, 12),
        ({"grid.n_train": [14]}, 6),
        ({"results.predictions": True}, 6),
    ],
    ids=str,
)
def test_the_grid_may_grow_and_shrink_without_asking(place: Path, change: dict[str, Any], cells: int):
    before = results_of(place / "sweep.yaml").cells.to_pandas().set_index("cell_id")
    ending = again(place, change)
    assert not ending.report.failures
    assert ending.n_cells == cells
    after = results_of(place / "sweep.yaml").cells.to_pandas().set_index("cell_id")
    kept = before.index.intersection(after.index)
    # lambdas are solved together, so that the last bits may depend on which
    tolerance = 1e-12 if "grid.lambdas" in change else 0.0
    assert after.loc[kept, "eval_loss"].tolist() == pytest.approx(before.loc[kept, "eval_loss"], rel=tolerance, abs=0)
    assert len(finished_stages(place)) == len(set(finished_stages(place)))


def test_a_further_seed_computes_only_its_own_stages(place: Path):
    first = set(finished_stages(place))
    ending = again(place, {"grid.seeds": [0, 1]})
    assert ending.report.computed == len(first)
    assert not set(finished_stages(place)[len(first) :]) & first


def test_a_further_lambda_computes_nothing(place: Path):
    ending = again(place, {"grid.lambdas": {"values": [0.01, 0.1, 1.0], "scale": "trace"}})
    assert ending.report.computed == 0
    assert ending.n_cells == 9


def test_hidden_files_of_others_in_the_results_are_left_alone(place: Path):
    foreign = [place / "results" / name for name in (".sync.tmp", ".a.b.c.d.tmp", "artifacts/.x.tmp")]
    for path in foreign:
        path.touch()
    assert again(place, {"grid.seeds": [0, 1]}).n_cells == 12
    assert all(path.exists() for path in foreign)


# --- other numbers


def test_other_numbers_are_refused_with_every_difference_and_both_ways_out(place: Path):
    with pytest.raises(ChangedError) as raised:
        again(place, {"adapter.rank": 4, "kernel.sigma": 0.5, "adapter.target_modules": ["query"]})
    message = str(raised.value)
    assert "adapter.rank: 2 in the folder, 4 now" in message
    assert "kernel.sigma: 0.0001 in the folder, 0.5 now" in message
    assert 'adapter.target_modules: ["query", "value"] in the folder, ["query"] now' in message
    assert message.count(" in the folder, ") == 3
    assert "--on-change stored" in message
    assert "--on-change given" in message
    assert again(place).was_finished


def test_plan_says_on_one_line_that_run_would_refuse_and_why(place: Path):
    write_spec(place, {"adapter.rank": 4, "kernel.sigma": 0.5})
    answer = ntksweep("plan", place / "sweep.yaml")
    assert answer.status == 0
    (said,) = (line for line in answer.output.splitlines() if "would refuse" in line)
    results = place / "results"
    assert said.startswith(
        f"`run` would refuse this: the spec asks for other numbers than {results} holds: adapter.rank: 2 in the folder"
        ", 4 now; kernel.sigma: 0.0001 in the folder, 0.5 now. Keep the folder's with `--on-change stored`"
    )
    refused = ntksweep("run", place / "sweep.yaml", "--executor", "inline")
    assert "adapter.rank: 2 in the folder, 4 now" in refused.errors
    write_spec(place, {"name": "other"})
    assert f"would refuse this: {results} holds the sweep `tiny`" in ntksweep("plan", place / "sweep.yaml").output
    write_spec(place, {})
    assert "would refuse" not in ntksweep("plan", place / "sweep.yaml").output


def test_keeping_the_stored_side_leaves_the_results_as_they_are(place: Path):
    ending = again(place, {"adapter.rank": 4}, OnChange.STORED)
    assert ending.was_finished
    assert ending.plan.sweep.spec.adapter.rank == 2
    assert results_of(place / "sweep.yaml").cells.to_pandas()["adapter_rank"].unique().tolist() == [2]


def test_taking_the_given_side_computes_anew_what_differs(place: Path):
    ending = again(place, {"adapter.rank": 4}, OnChange.GIVEN)
    assert ending.report.computed > 0
    assert not ending.report.failures
    assert results_of(place / "sweep.yaml").cells.to_pandas()["adapter_rank"].unique().tolist() == [4]
    # and the way back finds the old artifacts
    back = again(place, on_change=OnChange.GIVEN)
    assert back.report.computed == 0
    assert results_of(place / "sweep.yaml").cells.to_pandas()["adapter_rank"].unique().tolist() == [2]


def test_numbers_may_change_freely_while_nothing_is_finished(place: Path):
    shutil.rmtree(place / "results" / "artifacts")
    shutil.rmtree(place / "results" / "tables")
    assert again(place, {"adapter.rank": 4}).n_cells == 6


# --- data and model


def test_changed_data_is_refused(place: Path):
    write_data(place / "data.parquet", seed=1)
    with pytest.raises(ChangedError, match=r"data: the files have changed"):
        again(place)


def test_a_changed_model_is_refused(place: Path):
    save_tiny("bert", place / "model", seed=1)
    with pytest.raises(ChangedError, match=r"model: the files have changed"):
        again(place)


def test_changed_data_can_be_taken_but_what_it_was_cannot_be_kept(place: Path):
    again(place)  # the sweep lies here now
    again(place, {"grid.seeds": [0, 1]})
    write_data(place / "data.parquet", seed=1)
    with pytest.raises(ChangedError, match=r"the data at .*data.parquet has changed since the run began.*restore it"):
        again(place, {"grid.seeds": [0, 1]}, OnChange.STORED)
    ending = again(place, {"grid.seeds": [0, 1]}, OnChange.GIVEN)
    assert ending.report.computed > 0
    assert ending.n_cells == 12


def test_a_stored_sweep_whose_data_has_changed_where_it_lay_cannot_be_kept_either(place: Path):
    again(place, {"grid.seeds": [0, 1]})  # stored with the data of this folder
    write_data(place / "data.parquet", seed=1)
    write_data(place / "other.parquet", seed=2)
    with pytest.raises(ChangedError, match="has changed since the run began"):
        again(place, {"task.data": "other.parquet"}, OnChange.STORED)


def test_keeping_the_stored_side_works_with_data_that_moved(place: Path):
    shutil.move(place / "data.parquet", place / "moved.parquet")
    again(place, {"task.data": "moved.parquet"})
    (place / "results" / "tables" / "manifest.json").unlink()
    moved_again = {"task.data": "elsewhere.parquet", "adapter.rank": 4}
    shutil.move(place / "moved.parquet", place / "elsewhere.parquet")
    ending = again(place, moved_again, OnChange.STORED)
    assert ending.plan.sweep.spec.adapter.rank == 2
    assert ending.plan.sweep.sources.data.location == str(place / "elsewhere.parquet")


def test_keeping_the_stored_side_needs_the_stored_data(place: Path):
    again(place, {"grid.seeds": [0, 1]})
    (place / "data.parquet").unlink()
    write_data(place / "other.parquet", seed=1)
    with pytest.raises(SourceError, match=r"the data of the stored sweep is no longer at .*data.parquet; put it back"):
        again(place, {"task.data": "other.parquet"}, OnChange.STORED)


def test_lost_data_is_told_before_anything_else(place: Path):
    (place / "data.parquet").unlink()
    with pytest.raises(SourceError, match="there is nothing at"):
        again(place)


# --- differences


def test_differences_are_told_by_dotted_name():
    one = Sweep(spec_of(), sources_of()).numbers()
    other = Sweep(spec_of({"kernel.outputs": "trace", "grid.seeds": [5]}), sources_of(content="b")).numbers()
    assert differences(one, one) == []
    assert differences(one, other) == [
        'kernel.outputs: "full" in the folder, "trace" now',
        "model: the files have changed",
        "data: the files have changed",
    ]


def test_the_memory_budget_is_a_number_only_where_it_chooses_the_shards():
    automatic = [sweep_of({"compute.shard_examples": None, "compute.memory_budget": b}) for b in ("1GB", "2GB")]
    chosen = [sweep_of({"compute.shard_examples": 4, "compute.memory_budget": b}) for b in ("1GB", "2GB")]
    (difference,) = differences(automatic[0].numbers(), automatic[1].numbers())
    assert "compute.memory_budget" in difference
    assert chosen[0].numbers() == chosen[1].numbers()


def test_labels_that_are_written_out_as_they_were_found_are_the_same_sweep(tmp_path: Path, tiny_model: Path):
    named = {"label": [["good", "bad"][n % 2] for n in range(40)]}
    write_data(tmp_path / "data.parquet", **named)
    path = write_spec(tmp_path, {"model.path": str(tiny_model)})
    assert run_spec(path).report.computed
    for written in ({"bad": 0, "good": 1}, {"good": 1, "bad": 0}, None):
        write_spec(tmp_path, {"model.path": str(tiny_model), "task.labels": written})
        assert run_spec(path).was_finished
    for other in ({"good": 0, "bad": 1}, {"bad": 0, "good": 1, "fair": 1}):
        write_spec(tmp_path, {"model.path": str(tiny_model), "task.labels": other})
        with pytest.raises(ChangedError, match="labels"):
            run_spec(path)


def test_whole_numbers_that_are_mapped_to_themselves_are_the_same_sweep(tmp_path: Path, tiny_model: Path):
    write_data(tmp_path / "data.parquet", label=[n % 2 for n in range(40)])
    path = write_spec(tmp_path, {"model.path": str(tiny_model)})
    first = run_spec(path)
    assert first.report.computed
    for written in ({0: 0, 1: 1}, {"1": 1, "0": 0}, None):
        write_spec(tmp_path, {"model.path": str(tiny_model), "task.labels": written})
        again = run_spec(path)
        assert again.was_finished
        assert again.plan.plan_id == first.plan.plan_id
    for other in ({0: 1, 1: 0}, {0: 0, 1: 1, 2: 2}):
        write_spec(tmp_path, {"model.path": str(tiny_model), "task.labels": other})
        with pytest.raises(ChangedError, match="labels"):
            run_spec(path)
