"""Grids that are too large to plan: told at once, with what makes them so, and those just below planned."""

import time
from typing import Any

import pytest

from orchestrator.errors import SpecError
from orchestrator.plan import limits as plan_limits
from tests.orchestrator.sweeps import groups_of, ntksweep, plan_of, survey_of, write_data, write_spec

MANY_LAYERS = survey_of(groups=groups_of(48, ("query", "value"), n_parameters=10**8), pool=10**9)
TRAINED = {"learning_rate": 0.1, "epochs": 1, "stacked_cells": 2}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"grid.layer_sets": [{"subsets": 4}]},
            "grid.layer_sets: the 48 layers of this model have 2.13e+05 subsets of up to 4 layers, and 100,000 are the "
            "most; give a smaller `subsets`",
        ),
        (
            {"grid.n_train": [10_000_000], "compute.shard_examples": 100},
            "1 seeds, each with 100,001 shards of 100 examples and 5,000,150,000 kernel tiles; set "
            "compute.shard_examples larger, or give fewer seeds or examples",
        ),
        (
            {"grid.seeds": list(range(40)), "grid.layer_sets": [{"subsets": 3}], "grid.lambdas": {"values": [1.0]}},
            "the plan would have about 738,880 stages that solve and train, and 500,000 stages are the most: 40 sets "
            "of task, rank, learning rate, seed and training-set size, and 18,472 layer sets with 1 stages each",
        ),
        (
            {"grid.seeds": list(range(200)), "grid.layer_sets": [{"subsets": 2}], "finetune": TRAINED},
            "1,176 layer sets with 4 stages each",
        ),
        (
            {"grid.lambdas": {"logspace": {"start": 1e-6, "stop": 1, "count": 10_000}}, "grid.layer_sets": ["pairs"],
             "grid.seeds": list(range(10))},
            "the grid would have 112,800,000 cells, and 100,000,000 are the most: 10 sets of",
        ),
    ],
    ids=["subsets", "tiles", "solves", "training", "cells"],
)  # fmt: skip
def test_a_grid_that_is_too_large_says_what_makes_it_so(changes: dict[str, Any], said: str):
    began = time.process_time()
    with pytest.raises(SpecError) as raised:
        plan_of(changes, survey=MANY_LAYERS)
    assert said in str(raised.value)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grid.layer_sets": [{"subsets": 2}], "grid.seeds": [0, 1], "grid.n_train": [6, 10]},
        {"finetune": TRAINED, "grid.lambdas": {"values": [0.1, 1.0, 10.0]}},
    ],
    ids=str,
)
def test_the_bound_on_stages_is_that_of_the_plan_but_for_a_few(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    survey = survey_of(groups=groups_of(8, ("query", "value"), n_parameters=1000))
    plan = plan_of(changes, survey=survey)
    few = sum(stage.kind not in ("capture", "gram", "solve", "finetune", "compare") for stage in plan.stages)
    assert few <= 4 * len(set(plan.sweep.spec.grid.seeds))
    monkeypatch.setattr(plan_limits, "MOST_STAGES", len(plan.stages))
    assert plan_of(changes, survey=survey).stages == plan.stages
    monkeypatch.setattr(plan_limits, "MOST_STAGES", len(plan.stages) - few - 1)
    with pytest.raises(SpecError, match=r"give fewer|set compute.shard_examples larger"):
        plan_of(changes, survey=survey)


def test_the_command_tells_it_in_plan(tmp_path, tiny_model):
    write_data(tmp_path / "data.parquet")
    spec = write_spec(
        tmp_path, {"model.path": str(tiny_model), "grid.seeds": list(range(50_000)), "grid.layer_sets": ["all_layers"]}
    )
    answer = ntksweep("plan", spec)
    assert answer.status == 2
    assert "the plan would have" in answer.errors
    assert answer.errors.count("\n") == 1
