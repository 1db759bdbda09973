"""Training that is killed, diverges or runs out of memory goes on, or says what happened."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.training import loop
from orchestrator.spec import read_spec
from orchestrator.store import checkpoints
from orchestrator.sweep.folder import ResultsFolder
from tests.faults.tables import assert_same_tables, numbers
from tests.orchestrator.stages.trained_sweeps import DESCENT, TRAINING, training
from tests.orchestrator.sweeps import results_of, run_spec


class Killed(BaseException):
    """The process dies; nothing in it may tidy up."""


def test_a_killed_stage_goes_on_from_its_checkpoint_with_the_same_bits(
    tmp_path: Path, tiny_model: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = training(tmp_path, tiny_model)
    updates = count_updates(monkeypatch)
    monkeypatch.setattr(checkpoints, "SAVED_EVERY", 0.0)
    save, saves = checkpoints.FileCheckpoint.save, [0]

    def die_at_the_seventh(self: checkpoints.FileCheckpoint, arrays: Any) -> None:
        save(self, arrays)
        saves[0] += 1
        if saves[0] == 7:
            raise Killed

    monkeypatch.setattr(checkpoints.FileCheckpoint, "save", die_at_the_seventh)
    with pytest.raises(Killed):
        run_spec(spec)
    kept = ResultsFolder(read_spec(spec).folder).checkpoints
    assert len(list(kept.iterdir())) == 1
    monkeypatch.setattr(checkpoints.FileCheckpoint, "save", save)
    assert not run_spec(spec).report.failures
    assert_same_tables(spec.parent / "results", numbers(trained.parent / "results"))
    assert list(kept.iterdir()) == []
    stages = sum(stage.kind == "finetune" for stage in run_spec(spec).plan.stages)
    assert len(updates) == stages * TRAINING["epochs"] * 3


def test_a_damaged_checkpoint_counts_as_none(
    tmp_path: Path, tiny_model: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = training(tmp_path, tiny_model)
    monkeypatch.setattr(checkpoints, "SAVED_EVERY", 0.0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        batches = loop.step_batches
        patch.setattr(loop, "step_batches", lambda *arguments: die() if arguments[2] == 5 else batches(*arguments))
        run_spec(spec)
    (kept,) = ResultsFolder(read_spec(spec).folder).checkpoints.iterdir()
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert not run_spec(spec).report.failures
    assert_same_tables(spec.parent / "results", numbers(trained.parent / "results"))


def die() -> Any:
    raise Killed


def count_updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with every update of a training run."""
    updates: list[int] = []
    batches = loop.step_batches

    def counted(settings: Any, lengths: Any, step: int, *others: Any) -> Any:
        updates.append(step)
        return batches(settings, lengths, step, *others)

    monkeypatch.setattr(loop, "step_batches", counted)
    return updates


def test_a_cell_that_diverges_says_where_and_the_sweep_goes_on(tmp_path: Path, tiny_model: Path):
    # The step of 0.02 is far too long for the pull of the second lambda, and fine for that of the first.
    settings = DESCENT | {"epochs": 40, "kernel_examples": 0}
    lambdas = {"values": [1e-3, 1e5], "scale": "absolute"}
    spec = training(tmp_path, tiny_model, settings, **{"grid.lambdas": lambdas})
    ending = run_spec(spec)
    assert not ending.report.failures
    assert ending.n_cells == ending.plan.n_cells
    rows = results_of(spec).cells.to_arrow().to_pylist()
    wild = [row for row in rows if row["lambda_given"] == 1e5]
    assert {row["linearized_status"] for row in wild} == {"diverged"}
    for row in wild:
        assert 0 < row["linearized_failed_step"] < 40
        assert np.isfinite(row["linearized_train_loss"])
        assert row["linearized_steps"] <= row["linearized_failed_step"]
    assert "diverged" not in {row["linearized_status"] for row in rows if row["lambda_given"] == 1e-3}


def test_memory_that_runs_out_in_training_is_met_with_smaller_batches(
    tmp_path: Path, tiny_model: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = training(tmp_path, tiny_model)
    losses = loop.example_losses

    def limited(loss: Any, outputs: torch.Tensor, targets: Any) -> torch.Tensor:
        if outputs.requires_grad and outputs.shape[1] > 2:
            raise MemoryError("no room for so many examples")
        return losses(loss, outputs, targets)

    monkeypatch.setattr(loop, "example_losses", limited)
    assert not run_spec(spec).report.failures
    found, expected = (results_of(each).cells.to_pandas() for each in (spec, trained))
    assert np.allclose(found["finetune_train_loss"], expected["finetune_train_loss"], rtol=1e-8)
    assert set(found["halvings"]) == {1}
