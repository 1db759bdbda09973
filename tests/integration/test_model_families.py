"""Sweeps with models of other families than BERT, from the spec to the tables, with cells that are trained."""

from pathlib import Path
from typing import Any

import pytest

from tests.orchestrator.stages.test_training import DESCENT, reference
from tests.orchestrator.sweeps import make_sweep, results_of, run_spec
from tests.tiny_models import Kind, save_tiny

TARGETS: dict[Kind, list[str]] = {
    "qwen3": ["q_proj", "gate_proj"],
    "gemma2": ["k_proj", "down_proj"],
    "t5": ["q", "wi"],
}
GRID: dict[str, Any] = {"grid.lambdas": {"values": [1.0], "scale": "trace"}, "grid.layer_sets": ["each_layer"]}


@pytest.mark.parametrize("kind", TARGETS)
def test_every_cell_is_trained_as_plain_autograd_trains_it(tmp_path: Path, kind: Kind):
    model = save_tiny(kind, tmp_path / "model")
    path = make_sweep(tmp_path, GRID | {"finetune": DESCENT, "adapter.target_modules": TARGETS[kind]}, model=model)
    ending = run_spec(path)
    assert not ending.report.failures
    # above the first layer on states that were kept
    assert {stage.parameters.runs[0].frozen_layers for stage in ending.plan.stages if stage.kind == "finetune"} >= {
        0,
        1,
    }
    groups = {layer_set.name: list(layer_set.groups) for layer_set in ending.plan.variants[0].layer_sets}
    rows = results_of(path).cells.to_arrow().to_pylist()
    assert sorted(row["layer_set"] for row in rows) == ["layers:0", "layers:1"]
    for row in rows:
        columns, _ = reference(path, groups[row["layer_set"]], row["lambda"])
        for column, expected in columns.items():
            assert row[column] == pytest.approx(expected, rel=1e-8), (row["layer_set"], column)
