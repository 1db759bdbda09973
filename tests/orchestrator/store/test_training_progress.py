"""How far trainings are, as small files that their workers replace."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.store import training_progress
from orchestrator.store.training_progress import ProgressFile, progress_of, to_json


def test_it_comes_back_as_it_was_without_losses_that_are_not_numbers(tmp_path: Path):
    path = tmp_path / "training" / "a.json"
    assert progress_of(path) is None
    file = ProgressFile(path, "fine-tuned, layer 0", steps=12, epochs=3)
    file.evaluated(0, {0: 1.0, 1: 2.0}, {0: 1.5, 1: math.inf})
    file._next = 0.0
    file.stepped(8, {0: 0.5, 1: math.nan})
    found = progress_of(path)
    assert found is not None
    assert (found.label, found.step, found.steps, found.epoch) == ("fine-tuned, layer 0", 8, 12, 2.0)
    assert (found.losses, found.train_losses, found.eval_losses) == ({0: 0.5}, {0: 1.0, 1: 2.0}, {0: 1.5})
    assert json.loads(json.dumps(to_json(found), allow_nan=False))["evaluated_at"] == 0
    file.remove()
    assert list(path.parent.iterdir()) == []


def test_steps_are_written_once_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(training_progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    written: list[Path] = []
    monkeypatch.setattr(training_progress, "replace", lambda path, *_, **__: written.append(path))
    file = ProgressFile(tmp_path / "a.json", "", steps=1000, epochs=1)
    for step in range(1, 1001):
        file.stepped(step, {0: 1.0})
        now[0] += 0.01
    assert len(written) == 10


def test_it_says_where_its_process_took_it_up(tmp_path: Path):
    fresh, resumed = (ProgressFile(tmp_path / name, "", steps=100, epochs=1) for name in ("fresh", "resumed"))
    fresh.stepped(1, {0: 1.0})
    resumed.stepped(41, {0: 1.0})
    resumed.evaluated(50, {0: 1.0}, {0: 1.0})
    found = [progress_of(tmp_path / name) for name in ("fresh", "resumed")]
    assert [each and each.resumed_at for each in found] == [0, 40]


def test_a_folder_that_cannot_be_written_does_not_end_a_training(tmp_path: Path):
    (tmp_path / "training").write_text("no folder")
    file = ProgressFile(tmp_path / "training" / "a.json", "", steps=2, epochs=1)
    file.stepped(1, {0: 1.0})
    file.evaluated(2, {0: 1.0}, {0: 1.0})
    file.remove()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"label": 1}', b'{"label": "a", "steps": 1, "epochs": 1, "step": 7}']
)
def test_what_is_no_progress_is_none(tmp_path: Path, content: bytes):
    (tmp_path / "a.json").write_bytes(content)
    assert progress_of(tmp_path / "a.json") is None
