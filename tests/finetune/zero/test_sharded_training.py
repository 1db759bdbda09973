"""Divided models are trained as whole ones: on every process the same bits, again after a stop, and never apart."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from finetune.errors import ProcessGroupError
from finetune.training.run import CellStatus
from tests.finetune.training.problems import ADAM, DESCENT
from tests.finetune.zero.capturing import Case
from tests.finetune.zero.training import Found, Training, run_whole, train_all
from tests.forked_group import run_forked_group
from tests.tiny_models import save_tiny

LIMIT = 2e-5
"""Relative distance from a whole model in float64; that of a whole one in float32 is 1e-6 to 6e-6 in these cases."""


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Training]:
    """By name; seven training examples, so that batches of three leave one for the last, and none for one process."""
    folder = tmp_path_factory.mktemp("models")
    targets = {"bert": ("query", "value"), "llama": ("q_proj", "down_proj"), "t5": ("q", "wo")}
    bert, llama, t5 = (Case(str(save_tiny(kind, folder / kind)), targets[kind], ()) for kind in targets)
    momentum = replace(
        ADAM, optimizer="sgd", momentum=0.9, gradient_accumulation_steps=2, lr_scheduler_type="linear", steps=6
    )
    return {
        "momentum": Training(bert, momentum, followed=3),
        "alone": Training(replace(bert, alone=True), momentum, lowest=1, followed=3),
        "all weights": Training(replace(bert, adapter="none"), replace(momentum, batch_size=1, steps=9)),
        "seeds": Training(llama, replace(ADAM, max_grad_norm=1.0), lowest=1, seeds=(1, 2)),
        "kept states of T5": Training(t5, replace(ADAM, regularizer="selective", steps=4), lowest=1),
        "ends": Training(
            llama, replace(DESCENT, steps=8, eval_steps=1, early_stopping_patience=2), rates=(0.5, 0.02, 1e4)
        ),
    }


@pytest.fixture(scope="module")
def left(trainings: dict[str, Training], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with what two processes found until one of them was killed."""
    folder = tmp_path_factory.mktemp("found")
    with pytest.raises(ProcessGroupError, match="process 1 of a process group of 2 was killed by SIGKILL"):
        run_forked_group(2, train_all, trainings, "seeds", folder)
    return folder


def found_by(folder: Path, name: str, size: int = 2) -> Found:
    """Return what every process found, which has to be the same."""
    first, *others = (load_file(folder / f"{name}-{rank}.safetensors") for rank in range(size))
    for other in others:
        assert_same_bits(first, other)
    return first


def assert_same_bits(one: Found, other: Found) -> None:
    assert one.keys() == other.keys()
    assert all(np.array_equal(values, other[part], equal_nan=True) for part, values in one.items())


def assert_near_whole(found: Found, training: Training) -> None:
    expected = run_whole(training, "float64")
    assert found.keys() == expected.keys()
    assert np.array_equal(found["ended"], expected["ended"])
    for part, values in expected.items():
        assert np.linalg.norm(found[part] - values) <= LIMIT * np.linalg.norm(values), part


@pytest.mark.parametrize("name", ["momentum", "alone", "all weights", "seeds", "kept states of T5"])
def test_two_processes_train_the_whole_models_cells(trainings: dict[str, Training], left: Path, name: str):
    assert_near_whole(found_by(left, name), trainings[name])


def test_cells_end_as_in_whole_models(trainings: dict[str, Training], left: Path):
    found, expected = found_by(left, "ends"), run_whole(trainings["ends"], "float64")
    statuses = list(CellStatus)
    ended = [CellStatus.STOPPED_EARLY, CellStatus.FINISHED, CellStatus.DIVERGED]
    assert [statuses[int(status)] for status, _, _ in found["ended"]] == ended
    assert np.array_equal(found["ended"], expected["ended"])
    for part in ("displacement 0", "displacement 1"):
        assert np.linalg.norm(found[part] - expected[part]) <= LIMIT * np.linalg.norm(expected[part])


def test_a_second_run_and_one_that_was_stopped_have_the_same_bits(left: Path):
    for name in ("again", "stopped"):
        assert_same_bits(found_by(left, name), found_by(left, "seeds"))


def test_processes_that_no_longer_have_the_same_weights_say_so(left: Path):
    for rank in range(2):
        assert "no longer have the same weights" in json.loads((left / f"apart-{rank}.json").read_text())


def test_products_with_the_jacobian_are_refused(left: Path):
    for rank in range(2):
        assert "set finetune.linearization: rows" in json.loads((left / f"products-{rank}.json").read_text())
