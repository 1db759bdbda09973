"""Baselines of a selection of layers: random sets, the last layers, condition numbers of weights."""

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from finetune.analysis.weight_condition import weight_condition_numbers
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from orchestrator.results.selection import baselines
from orchestrator.results.selection.baselines import (
    ILL_CONDITIONED,
    LAST,
    RANDOM,
    RANDOM_SETS,
    WELL_CONDITIONED,
    baseline_values,
    random_sets,
    weight_conditions,
)
from orchestrator.results.selection.stored import layers_of
from tests.orchestrator.results.selection.swept import BY_NAME, LAYERS, best_in_cells, folder_of, kernels_of, variant_in
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, run_spec
from tests.tiny_models import save_tiny

pytestmark = pytest.mark.xdist_group("selection")


def test_random_sets_are_all_sets_or_ten_that_never_change():
    assert random_sets(range(4), 2) == list(combinations(range(4), 2))
    drawn = random_sets(range(12), 3)
    assert drawn == random_sets(range(12), 3)
    assert len(set(drawn)) == RANDOM_SETS
    assert all(len(set(layers)) == 3 and set(layers) <= set(range(12)) for layers in drawn)
    assert drawn != list(combinations(range(12), 3))[:RANDOM_SETS]


@pytest.mark.parametrize("name", ["gcv", "alignment", "condition_relative"])
def test_baselines_are_the_cells_of_the_sets_that_they_stand_for(swept: Path, name: str):
    criterion, cells = BY_NAME[name], results_of(swept).cells.to_pandas()
    weights = {0: 5.0, 1: 1.0, 2: math.inf, 3: 2.0}

    def cell(*layers: int) -> float:
        return best_in_cells(cells, layers, 1, criterion)

    found = baseline_values(kernels_of(swept, 1), criterion, 2, weights)
    assert found[LAST] == cell(2, 3)
    assert found[WELL_CONDITIONED] == cell(1, 3)
    assert found[ILL_CONDITIONED] == cell(0, 2)
    assert found[RANDOM] == pytest.approx(criterion.mean([cell(*layers) for layers in combinations(range(4), 2)]))
    assert list(baseline_values(kernels_of(swept, 1), criterion, 2, {})) == [RANDOM, LAST]


def test_weights_have_the_condition_numbers_of_their_singular_values(deep_model: Path):
    found = weight_condition_numbers(
        ModelSettings(str(deep_model)), AdapterSettings("lora", 2, 4.0, ("query", "output.dense")),
        HeadSettings("random"), n_outputs=2,
    )  # fmt: skip
    modules = dict(AutoModel.from_pretrained(deep_model).named_modules())
    assert len(found) == 3 * LAYERS  # output.dense names two modules of a layer
    for group, path in {
        "2.query": "encoder.layer.2.attention.self.query",
        "3.output.dense": "encoder.layer.3.output.dense",
    }.items():
        weight = modules[path].weight.detach().numpy().astype(np.float64)
        assert found[group] == pytest.approx(np.linalg.cond(weight), rel=1e-9)


def test_singular_weights_have_an_infinite_condition_number(tmp_path: Path):
    model = save_tiny("bert", tmp_path / "model", layers=1, hidden=8)
    loaded = AutoModel.from_pretrained(model)
    with torch.no_grad():
        loaded.encoder.layer[0].attention.self.query.weight[:] = torch.diag(torch.arange(8.0))
    loaded.save_pretrained(model)
    found = weight_condition_numbers(
        ModelSettings(str(model)), AdapterSettings("none", 1, 1.0, ("query",)), HeadSettings("random"), n_outputs=2
    )
    assert found == {"0.query": math.inf}


def test_the_weights_of_a_layer_are_averaged_by_factors(swept: Path, monkeypatch: pytest.MonkeyPatch):
    def made_up(*_: Any, **__: Any) -> dict[str, float]:
        return {f"{layer}.{target}": (layer + 1) * factor for layer in range(4) for target, factor in
                (("query", 1.0), ("value", 100.0))}  # fmt: skip

    monkeypatch.setattr(baselines, "weight_condition_numbers", made_up)
    variant, solves = variant_in(folder_of(swept))
    weights, why = weight_conditions(variant, layers_of(variant, solves))
    assert weights == pytest.approx({0: 10.0, 1: 20.0, 2: 30.0, 3: 40.0})
    assert why == ""


def test_without_its_model_a_sweep_has_the_other_baselines(tmp_path: Path):
    spec = make_sweep(tmp_path, {"grid.layer_sets": ["each_layer", "all_layers"]})
    run_spec(spec)
    model = tmp_path / "model"
    model.rename(tmp_path / "moved")
    gone = ntksweep("select", spec, "--greedy", "1")
    assert gone.status == 0
    assert "No baselines by the condition number of weights: the model of the stored sweep is no longer at" in " ".join(
        gone.output.split()
    )
    save_tiny("bert", model, seed=9)
    changed = json.loads(ntksweep("select", spec, "--greedy", "1", "--json").output)["greedy"]
    assert list(changed["seeds"][0]["steps"][0]["baselines"]) == [RANDOM, LAST]
    assert "is no longer the one that the sweep was run with" in changed["without_weights"]
