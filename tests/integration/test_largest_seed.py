"""The largest seed: whole sweeps, with everything that is drawn, from one."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.results.loading import load
from tests.orchestrator.sweeps import make_sweep, ntksweep

LARGEST = 2**63 - 1
TRAINED = {"learning_rate": 0.05, "epochs": 1, "batch_size": 4, "num_evaluations": 1, "kernel_examples": 4}


@pytest.mark.parametrize(
    "changes",
    [
        {"model.weights": "random", "model.weights_seed": LARGEST, "finetune": TRAINED, "task.sampling": "balanced"},
        {
            "kernel.decomposition": "iterative",
            "adapter.seed": LARGEST,
            "adapter.initialization": "random",
            "task.distinct_texts": True,
            "head.seed": LARGEST,
            "grid.seeds": [LARGEST, LARGEST - 1],
        },
        {"head": {"kind": "logistic"}, "task.sample_seed": LARGEST},
    ],
    ids=", ".join,
)
def test_a_whole_sweep_works_with_the_largest_seed(changes: dict[str, Any], tmp_path: Path, tiny_model: Path):
    changes = {"grid.seeds": [LARGEST], "grid.layer_sets": ["all_layers"]} | changes
    spec = make_sweep(tmp_path, changes, model=tiny_model)
    answer = ntksweep("run", spec)
    assert answer.status == 0, answer.output + answer.errors
    seeds = load(tmp_path / "results").cells.to_arrow(["seed"])["seed"].to_pylist()
    assert set(seeds) == set(changes["grid.seeds"])


def test_a_larger_one_is_told_before_anything_is_done(tmp_path: Path, tiny_model: Path):
    answer = ntksweep("plan", make_sweep(tmp_path, {"grid.seeds": [LARGEST + 1]}, model=tiny_model))
    assert answer.status == 2
    assert "grid.seeds.0: `9223372036854775808` must be at most 9,223,372,036,854,775,807" in answer.errors
