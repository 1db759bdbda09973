"""Divided models are freed once nobody holds them, and leave nothing that changes those after them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.sharding.launching import run_group
from tests.finetune.sharding.capturing import Case
from tests.finetune.sharding.releasing import capture_last, capture_one, hold_one_of_two
from tests.tiny_models import save_tiny


@pytest.fixture
def case(tmp_path: Path) -> Case:
    texts = ("the film was great", "a dull plot", "good")
    return Case(str(save_tiny("bert", tmp_path / "bert")), ("query", "output.dense"), texts)


def test_no_weights_stay_of_models_that_were_dropped_and_the_next_ones_rows_are_those_of_a_first_one(
    case: Case, tmp_path: Path
):
    again = replace(case, checkpointing=True)
    cases = {"probed": case, "unused": case, "drawn": case, "run again": again, "broken off": case, "last": case}
    assert run_group(2, capture_last, cases, tmp_path) == [[0] * len(cases)] * 2
    run_group(2, capture_one, case, tmp_path)
    for rank in range(2):
        first, last = (load_file(tmp_path / f"{name}-{rank}.safetensors") for name in ("first", "last"))
        assert first.keys() == last.keys()
        assert all(torch.equal(first[name], values) for name, values in last.items())


def test_a_model_that_is_still_held_stays_whole(case: Case):
    for same, (held, dropped, whole) in run_group(2, hold_one_of_two, case):
        assert same
        assert (held, dropped) == (whole, 0)
