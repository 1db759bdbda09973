"""Results folders where a spec is expected, specs where a folder is, names that people use, and files that stay."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.results.usual_names import layer_set_named
from tests.orchestrator.sweeps import make_sweep, ntksweep, run_spec


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of a finished sweep: mine.yaml, and results/mine."""
    folder = tmp_path_factory.mktemp("place")
    changes = {"name": "mine", "results.folder": str(folder / "results" / "mine"), "kernel.outputs": "margin"}
    spec = make_sweep(folder, changes, model=tiny_model)
    assert not run_spec(spec).report.failures
    return spec.rename(folder / "mine.yaml").parent


@pytest.fixture(autouse=True)
def there(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(finished)
    yield


@pytest.mark.parametrize("place", ["mine.yaml", "results/mine", "results/mine/spec.yaml", "results/mine/tables"])
def test_every_command_takes_the_spec_or_its_results(place: str):
    for command in (["plan"], ["run", "--executor", "inline"], ["status"], ["show"], ["select"]):
        answer = ntksweep(command[0], place, *command[1:])
        assert (answer.status, answer.message) == (0, ""), (command, answer.errors)
        assert "the sweep was finished already" in answer.output or command[0] != "run"


def test_a_sweep_goes_on_from_its_results_alone(finished: Path, tmp_path: Path):
    copy = shutil.copytree(finished / "results" / "mine", tmp_path / "elsewhere")
    shutil.rmtree(copy / "artifacts" / "solve")
    shutil.rmtree(copy / "tables")
    answer = ntksweep("run", copy, "--executor", "inline")
    assert answer.status == 0, answer.errors
    assert "6 of 6 cells" in answer.output
    assert (copy / "tables" / "cells").is_dir()


def test_a_damaged_spec_of_results_is_told_as_such_by_commands_that_take_a_spec(finished: Path, tmp_path: Path):
    copy = shutil.copytree(finished / "results" / "mine", tmp_path / "elsewhere")
    (copy / "spec.yaml").write_text("garbage: [")
    answer = ntksweep("plan", copy)
    assert answer.status == 2
    assert f"{copy}/spec.yaml cannot be read" in answer.errors
    assert "finished artifacts are found by their content" in answer.errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "mine"], "there is nothing at mine; did you mean results/mine?"),
        (["show", "mine"], "there is nothing at mine; did you mean results/mine?"),
        (["plan", "mine.yml"], "did you mean mine.yaml?"),
        (["plan", "results"], "it is a folder, and no results folder of a sweep; name a file"),
        (["plan", "."], "name a file: mine.yaml"),
        (["show", "results"], "is not empty and holds no sweep (no spec.yaml); name one of those in it: "),
    ],
)
def test_what_was_meant_is_named(arguments: list[str], said: str):
    answer = ntksweep(*arguments)
    assert answer.status == 2
    assert said in answer.errors


@pytest.mark.parametrize(
    ("name", "layer_set"),
    [
        ("4", "layers:4"), ("layer 4", "layers:4"), ("0-2", "layers:0-2"), ("0,1,2", "layers:0-2"),
        ("all", "layers:0-5"),
        ("query", "target:query"), ("3.query", "groups:3.query"), ("layers:0-2", "layers:0-2"), ("7", "layers:7"),
        ("nothing", "nothing"), ("head", "head"), ("9" * 30, f"layers:{'9' * 30}"),
    ],
)  # fmt: skip
def test_layer_sets_have_the_names_that_people_use(name: str, layer_set: str):
    known = ["layers:4", "layers:0-2", "layers:0-5", "target:query", "groups:3.query", "head"]
    assert layer_set_named(name, known) == layer_set


def test_names_that_people_use_name_layer_sets_criteria_and_columns():
    assert ntksweep("show", "mine.yaml", "--layer-set", "1").output == (
        ntksweep("show", "results/mine", "--layer-set", "layers:1").output
    )
    assert "there is no layer set `layers:7`; there are: layers:0" in (
        ntksweep("show", "mine.yaml", "--layer-set", "7").errors
    )
    shown = [
        ntksweep("show", "mine.yaml", "--layer-set", "all", "--sort", each) for each in ("accuracy", "eval_accuracy")
    ]
    assert shown[0].output == shown[1].output
    for usual, criterion in {
        "kappa": "condition_relative",
        "KTA": "alignment",
        "effective-rank": "effective_rank",
    }.items():
        selected = ntksweep("select", "mine.yaml", "--by", usual)
        assert selected.output == ntksweep("select", "mine.yaml", "--by", criterion).output
        assert f"by {criterion}" in selected.output
    assert "did you mean `gcv`?" in ntksweep("select", "mine.yaml", "--by", "gcw").errors


@pytest.mark.parametrize("arguments", [["export", "-o", "out.csv"], ["report", "-o", "out.html"]])
def test_files_of_the_user_are_replaced_only_if_told(arguments: list[str], tmp_path: Path):
    command, option, name = arguments
    path = tmp_path / name
    path.write_text("mine")
    answer = ntksweep(command, "results/mine", option, path)
    assert answer.status == 2
    assert "exists" in answer.errors
    assert "--force" in answer.errors
    assert path.read_text() == "mine"
    assert ntksweep(command, "results/mine", option, path, "--force").status == 0
    assert path.read_text() != "mine"
