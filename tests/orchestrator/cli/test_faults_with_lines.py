"""What turns out wrong with a value of a spec, once model and data are looked at, is told with file, line and key."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from orchestrator.api.running import plan_sweep
from orchestrator.errors import ExitCode, SweepError
from orchestrator.spec import Spec
from tests.orchestrator.sweeps import changed, make_sweep, ntksweep, write_data, write_spec
from tests.root import ROOT

LABEL_WORDS = {"head": {"kind": "label_words", "words": ["bad", "zebra"], "in_kernel": False}}
LONG_TRAINING = {"finetune": {"learning_rate": 0.1, "epochs": 1, "n_train": 99}}

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("grid.layer_sets", {"grid.layer_sets": [{"layers": [[0, 7]]}]}, "layer 7 does not exist or has no target"),
    ("grid.layer_sets", {"grid.layer_sets": [{"groups": [["0.key"]]}]}, "there is no group `0.key`"),
    ("adapter.target_modules", {"adapter.target_modules": ["vlaue"]}, "target 'vlaue' matches no linear module"),
    ("grid.n_train", {"grid.n_train": [10, 400]}, "the data has too few examples"),
    ("task.n_eval", {"task.n_eval": 400}, "the data has too few examples"),
    ("task.label", {"task.label": "lable"}, "has no column 'lable'"),
    ("task.text", {"task.text": "sentence"}, "has no column 'sentence'"),
    ("task.train_split", {"task.train_split": "dev"}, "has no split 'dev'"),
    ("task.eval_split", {"task.eval_split": "dev"}, "has no split 'dev'"),
    ("task.classes", {"task.classes": 90}, "task.classes says 90 classes, but there are 40 rows"),
    ("task.data", {"task.data": "./none.csv"}, "there is nothing at "),
    ("model.path", {"model.path": "./none"}, "there is nothing at "),
    ("model.path", {"model.path": "some-org/some-model"}, "there is no local path `some-org/some-model`"),
    ("head.kind", LABEL_WORDS, "it was saved without its language-model head"),
    ("finetune.n_train", LONG_TRAINING, "the data has too few examples: finetune.n_train 99"),
    ("compute.memory_budget", {"compute.memory_budget": "1KB"}, "stage needs "),
]


@pytest.mark.parametrize(("key", "changes", "said"), CASES, ids=[f"{key}: {said}" for key, _, said in CASES])
def test_plan_and_run_name_the_line_of_the_value(
    key: str, changes: dict[str, Any], said: str, tmp_path: Path, tiny_model: Path
):
    spec = make_sweep(tmp_path, changes, model=tiny_model)
    section, name = key.split(".")
    lines = spec.read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if text.startswith(f"  {name}:") and _section(lines, n) == section)
    for command in ("plan", "run"):
        answer = ntksweep(command, spec)
        assert answer.status == ExitCode.WRONG_INPUT
        assert f"error: {spec}: line {line}, {key}: " in answer.errors
        assert said in answer.errors
        assert answer.errors.count(f", {key}: ") == 1


def _section(lines: list[str], number: int) -> str:
    return next(text for text in reversed(lines[:number]) if not text.startswith((" ", "-"))).rstrip(":")


def test_the_key_of_a_task_is_its_own_or_that_of_the_section_that_it_takes_it_from(tmp_path: Path, tiny_model: Path):
    tasks = {"movies": {"data": "data.parquet"}, "books": {"data": "data.parquet", "label": "lable"}}
    spec = make_sweep(tmp_path, {"grid.tasks": tasks}, model=tiny_model)
    assert re.search(r"line \d+, grid\.tasks\.books\.label: books: .* no column 'lable'", ntksweep("plan", spec).errors)
    spec = write_spec(tmp_path, {"grid.tasks": tasks, "model.path": str(tiny_model), "task.label": "lable"})
    assert re.search(r"line \d+, task\.label: movies: .* no column 'lable'", ntksweep("plan", spec).errors)


def test_a_key_that_is_not_written_has_the_line_of_its_section(tmp_path: Path, tiny_model: Path):
    write_data(tmp_path / "three.parquet", n=40, classes=3)
    spec = make_sweep(tmp_path, {"task.data": "three.parquet", "kernel": {"outputs": "margin"}}, model=tiny_model)
    line = spec.read_text().splitlines().index("kernel:") + 2
    assert f"{spec}: line {line}, kernel.outputs: margin needs two classes" in ntksweep("plan", spec).errors
    spec = make_sweep(tmp_path, {"task.label": None, "task.data": "none.csv"}, model=tiny_model)
    (tmp_path / "none.csv").write_text("text,stars\n" + "good,1\nbad,0\n" * 20)
    line = spec.read_text().splitlines().index("task:") + 1
    assert f"{spec}: line {line}, task.label: " in ntksweep("plan", spec).errors


def test_values_that_stand_in_no_file_have_a_key_and_no_line(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, model=tiny_model)
    answer = ntksweep("plan", spec, "grid.layer_sets=[{layers: [7]}]")
    assert f"{spec} with grid.layer_sets=[{{layers: [7]}}]: grid.layer_sets: layer 7 does not" in answer.errors
    changes = {"grid.layer_sets": [{"layers": [[7]]}], "task.data": str(tmp_path / "data.parquet")}
    tree = changed(yaml.safe_load(spec.read_text()), changes)
    with pytest.raises(SweepError, match=r"^the dictionary: grid\.layer_sets: layer 7 does not exist"):
        plan_sweep(tree)


def test_every_key_that_an_error_names_is_one_of_the_spec():
    sources = [path.read_text() for folder in ("finetune", "orchestrator") for path in (ROOT / folder).rglob("*.py")]
    named = {key for text in sources for key in re.findall(r"\b(?:setting|key) ?= ?\"([a-z_]+\.[a-z_]+)\"", text)}
    assert {"adapter.target_modules", "grid.n_train", "model.path"} <= named
    for section, name in (key.split(".") for key in named):
        annotation = Spec.model_fields[section].annotation
        models = [each for each in (annotation, *get_args(annotation)) if hasattr(each, "model_fields")]
        assert any(name in each.model_fields for each in models), f"{section}.{name}"
