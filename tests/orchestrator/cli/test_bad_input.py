"""Bad input: whatever is wrong with a spec, its model or its data is told as one message that says what to do."""

import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from safetensors.numpy import load_file, save_file
from transformers import BertModel

from orchestrator.cli import app as cli
from orchestrator.environment import refuse_what_is_too_old
from orchestrator.errors import ExitCode
from orchestrator.store.journal import read_journals
from tests.orchestrator.sweeps import Answer, make_sweep, ntksweep, write_data, write_spec
from tests.tiny_models import save_tiny

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Make:
    """Return a function that writes a sweep, with columns of its data replaced."""

    def write(changes: dict[str, Any] | None = None, **columns: Any) -> Path:
        spec = make_sweep(tmp_path, changes, model=tiny_model)
        write_data(tmp_path / "data.parquet", **columns)
        return spec

    return write


def refused(spec: Path, *, commands: tuple[str, ...] = ("plan", "run")) -> str:
    """Return the message with which both commands refuse a spec, which leaves nothing behind."""
    answers = {command: ntksweep(command, spec) for command in commands}
    for answer in answers.values():
        assert answer.status == ExitCode.WRONG_INPUT
        assert answer.message.startswith("error: ")
        assert answer.output == ""
        assert "Traceback" not in answer.message
    assert not (spec.parent / "results").exists()
    messages = {answer.message for answer in answers.values()}
    (message,) = messages
    return message


# --- the spec


def test_an_unknown_key(make: Make):
    message = refused(make({"grid.lamdas": 1}))
    assert "sweep.yaml is not a valid spec (1 fault):" in message
    assert "grid.lamdas: unknown key `lamdas`; did you mean `lambdas`?" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [("grid.layer_sets", []), ("grid.seeds", []), ("grid.n_train", []), ("grid.lambdas", {"values": []})],
)
def test_an_empty_grid(make: Make, key: str, value: Any):
    message = refused(make({key: value}))
    assert key in message
    assert "empty" in message


@pytest.mark.parametrize("strength", [0.0, -0.5])
def test_a_lambda_that_is_not_positive(make: Make, strength: float):
    message = refused(make({"grid.lambdas": {"values": [strength, 1.0]}}))
    assert f"grid.lambdas.values.0: `{strength:g}` must be greater than 0" in message


# --- the model


def test_a_layer_that_does_not_exist(make: Make):
    message = refused(make({"grid.layer_sets": [{"layers": [[0, 7]]}]}))
    assert "grid.layer_sets: layer 7 does not exist or has no target; layers: 0-1" in message


def test_a_group_that_does_not_exist(make: Make):
    message = refused(make({"grid.layer_sets": [{"groups": [["0.key"]]}]}))
    assert "there is no group `0.key`; nearest: " in message


def test_a_target_module_that_matches_nothing_is_told_with_what_exists(make: Make):
    message = refused(make({"adapter.target_modules": ["query", "vlaue"]}))
    assert "vlaue" in message
    for existing in ("query", "key", "value", "dense"):
        assert existing in message


def test_a_folder_that_is_no_model(make: Make, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert "it has no config.json" in refused(make({"model.path": "empty"}))


def test_a_model_without_weights(make: Make, tmp_path: Path):
    save_tiny("bert", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    answer = ntksweep("run", make({"model.path": "model"}))
    assert answer.status in (ExitCode.FAILED_STAGES, ExitCode.WRONG_INPUT)
    assert "Traceback" not in answer.output + answer.errors
    assert "model" in answer.output + answer.errors


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_no_numbers(make: Make, tmp_path: Path, number: float):
    save_tiny("bert", tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    name = "encoder.layer.1.attention.self.query.weight"
    weights[name][0, 0] = number
    save_file(weights, path, metadata={"format": "pt"})
    spec = make({"model.path": "model"})
    answer = ntksweep("run", spec)
    assert answer.status == ExitCode.FAILED_STAGES
    assert "failed (input): batching" in answer.output
    assert name in answer.output
    assert "Traceback" not in answer.output
    # wrong input fails the same way again: no stage was begun twice
    started = [
        event["stage"] for event in read_journals(tmp_path / "results" / "journal") if event["event"] == "started"
    ]
    assert len(started) == len(set(started))
    assert ntksweep("status", tmp_path / "results").status == ExitCode.FAILED_STAGES


@pytest.mark.parametrize(
    ("template", "words", "expected"),
    [
        (
            "{text} it was",
            ["bad", "good"],
            "is a masked language model, whose label words are read at a mask: put {mask}",
        ),
        ("{text} it was {mask}", ["bad", "zebra"], "the label word 'zebra' must be one known token"),
        ("{text} it was {mask}", ["bad", "good", "dull"], "3 label words for 2 outputs"),
        (
            "a very long template {text} it was {mask} and not bad but good and bright",
            ["bad", "good"],
            "leaves no room",
        ),
    ],
)
def test_label_words_that_cannot_be_read(make: Make, tmp_path: Path, template: str, words: list[str], expected: str):
    save_tiny("bert", tmp_path / "model", masked=True)
    head = {"kind": "label_words", "words": words, "in_kernel": False}
    assert expected in refused(make({"model.path": "model", "head": head, "task.template": template}))


def test_a_mask_that_no_label_word_is_read_at(make: Make):
    assert "set `head.kind: label_words`" in refused(make({"task.template": "{text} it was {mask}"}))


def test_label_words_of_a_model_without_its_language_model_head(make: Make, tmp_path: Path):
    save_tiny("bert", tmp_path / "masked", masked=True)
    BertModel.from_pretrained(tmp_path / "masked").save_pretrained(tmp_path / "masked")
    head = {"kind": "label_words", "words": ["bad", "good"], "in_kernel": False}
    message = refused(make({"model.path": "masked", "head": head, "task.template": "{text} it was {mask}"}))
    assert "saved without its language-model head" in message


# --- the data


def test_a_missing_column_is_told_with_those_that_exist(make: Make):
    message = refused(make({"task.label": "lable"}))
    assert "no column 'lable'" in message
    assert "text, label, rating" in message
    assert "no column 'text'" in refused(make(text=None))


@pytest.mark.parametrize("empty", ["", "   ", None])
def test_an_empty_text_is_told_with_its_row(make: Make, empty: str | None):
    message = refused(make(text=["a film"] * 17 + [empty] + ["a plot"] * 22))
    assert "17" in message
    assert "text" in message


def test_a_label_outside_the_head_is_told_with_its_row(make: Make):
    message = refused(make({"task.classes": 2}, label=[0, 1] * 10 + [2] + [1] * 19))
    assert "row 20" in message
    assert "label 2" in message
    assert "2 outputs" in message


@pytest.mark.parametrize(
    ("first", "others", "changes"),
    [
        (0.5, 1.0, {}),
        (-1, 1, {}),
        ("good", "1", {}),
        (float("nan"), 1.0, {"task.kind": "regression"}),
        (None, 1.0, {"task.kind": "regression"}),
        ("good", "bad", {"task.kind": "regression"}),
        (float("nan"), 1.0, {"task.sign_cut": 0.5}),
    ],
    ids=str,
)
def test_a_label_of_the_wrong_kind_is_told_with_its_row(make: Make, first: Any, others: Any, changes: dict[str, Any]):
    message = refused(make(changes, label=[first] + [others] * 39))
    assert "row 0" in message
    assert "label" in message


def test_a_split_that_does_not_exist(make: Make):
    message = refused(make({"task.eval_split": "validation"}))
    assert "no split 'validation'" in message
    assert "train" in message


def test_too_few_examples(make: Make):
    message = refused(make({"grid.n_train": [35]}))
    assert "grid.n_train 35 and task.n_eval 6 need more than the 40 that can be used; lower one of them" in message


def test_a_margin_of_three_classes(make: Make):
    message = refused(make({"kernel.outputs": "margin"}, label=[0, 1, 2, 1] * 10))
    assert "margin needs two classes; the data has 3" in message


def test_a_training_set_that_cannot_be_balanced(make: Make):
    message = refused(make({"task.sampling": "balanced", "grid.n_train": [11]}))
    assert "grid.n_train: balanced sampling takes as many examples of each of the 2 classes" in message
    message = refused(make({"task.sampling": "balanced"}, label=[0] * 37 + [1] * 3))
    assert "too few examples of class 1: task.sampling: balanced and grid.n_train 10 need 5, and there are 3" in message


def test_a_class_that_evaluation_leaves_too_small_is_told_by_the_stage(make: Make):
    changes = {"task.sampling": "balanced", "task.n_eval": 28}
    answer = ntksweep("run", make(changes, label=[0] * 34 + [1] * 6))
    assert answer.status == ExitCode.FAILED_STAGES
    assert "failed (input): dataset" in answer.output
    assert "training examples of class 1 are asked for, but there are" in answer.output


def test_a_text_that_holds_the_mask_of_its_prompt(make: Make, tmp_path: Path):
    save_tiny("bert", tmp_path / "model", masked=True)
    head = {"kind": "label_words", "words": ["bad", "good"], "in_kernel": False}
    changes = {"model.path": "model", "head": head, "task.template": "{text} it was {mask}"}
    message = refused(make(changes, text=["a film"] * 17 + ["a <mask> film"] + ["a plot"] * 22))
    assert "example 17 has 2 mask tokens" in message


def test_a_file_that_is_no_data(make: Make, tmp_path: Path):
    spec = make({"task.data": "broken.parquet"})
    (tmp_path / "broken.parquet").write_bytes(b"not a table at all")
    message = refused(spec)
    assert "broken.parquet cannot be read" in message


# --- a sweep that has begun


@pytest.fixture
def begun(make: Make, tmp_path: Path) -> Path:
    """The spec of a finished sweep whose model and data a test may change."""
    save_tiny("bert", tmp_path / "model")
    spec = make({"model.path": "model"})
    assert ntksweep("run", spec).status == 0
    return spec


def still_there(spec: Path) -> Answer:
    return ntksweep("status", spec.parent / "results", "--verify")


def test_data_that_changed_since_the_run_began(begun: Path):
    before = (begun.parent / "data.parquet").read_bytes()
    write_data(begun.parent / "data.parquet", seed=1)
    answer = ntksweep("run", begun)
    assert answer.status == ExitCode.WRONG_INPUT
    assert "data: the files have changed" in answer.errors
    assert "--on-change" in answer.errors
    assert still_there(begun).status == 0
    (begun.parent / "data.parquet").write_bytes(before)
    assert ntksweep("run", begun).status == 0


def test_a_model_that_changed_since_the_run_began(begun: Path):
    save_tiny("bert", begun.parent / "model", seed=1)
    answer = ntksweep("run", begun)
    assert answer.status == ExitCode.WRONG_INPUT
    assert "model: the files have changed" in answer.errors
    assert still_there(begun).status == 0


def test_a_results_folder_of_another_sweep(begun: Path):
    other = write_spec(begun.parent, {"name": "other"}, name="other.yaml")
    answer = ntksweep("run", other)
    assert answer.status == ExitCode.WRONG_INPUT
    assert "holds the sweep `tiny`, not `other`; name another results.folder" in answer.errors
    assert still_there(begun).status == 0


def test_a_results_folder_of_other_things(begun: Path):
    (begun.parent / "thesis").mkdir()
    (begun.parent / "thesis" / "chapter.tex").touch()
    spec = write_spec(begun.parent, {"results.folder": str(begun.parent / "thesis")})
    answer = ntksweep("run", spec)
    assert answer.status == ExitCode.WRONG_INPUT
    assert "is not empty and holds no sweep (no spec.yaml); name another results.folder" in answer.errors


def test_a_stored_spec_that_was_edited(begun: Path):
    stored = begun.parent / "results" / "spec.yaml"
    stored.write_text(stored.read_text().replace("rank: 2", "rank: 3"))
    for command in (["run", begun], ["status", begun], ["show", begun]):
        answer = ntksweep(*command)
        assert answer.status == ExitCode.WRONG_INPUT
        assert "was edited (its hash does not match)" in answer.errors
    stored.unlink()
    shutil.rmtree(begun.parent / "results")
    assert ntksweep("run", begun).status == 0


# --- the installation

TORCH = next(str(r.specifier) for r in map(Requirement, requires("ntksweep") or ()) if r.name == "torch")


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        (
            {"python": (3, 10, 12)},
            "ntksweep needs Python 3.11 or newer, this is 3.10.12; make a new virtual environment",
        ),
        (
            {"installed": lambda _: "2.4.1"},
            f"torch 2.4.1 is installed, ntksweep needs {TORCH}; pip install 'torch{TORCH}'",
        ),
    ],
    ids=["Python", "torch"],
)
def test_an_installation_that_is_too_old(
    make: Make, monkeypatch: pytest.MonkeyPatch, old: dict[str, Any], expected: str
):
    monkeypatch.setattr(cli, "refuse_what_is_too_old", partial(refuse_what_is_too_old, **old))
    assert refused(make()) == f"error: {expected}\n"
