"""Sweeps over real sentences with a real model, as `make demo` fetches them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import orchestrator
from orchestrator.cli.summary import summarize
from orchestrator.engine.run import run
from orchestrator.spec import Spec
from tests.orchestrator.sweeps import Quiet
from tests.root import ROOT

FETCHED = ROOT / "examples" / "data"
TASKS = Path(os.environ.get("NTKSWEEP_TASKS", ROOT.parent / "shared" / "data"))
"""Folders of well-known tasks as train.parquet and validation.parquet, with the columns text and label."""

needs_fetched = pytest.mark.skipif(
    not (FETCHED / "minilm").is_dir() or not (FETCHED / "amazon.parquet").is_file(),
    reason="needs examples/data: python examples/fetch_quickstart.py",
)


def sweep(folder: Path, task: dict[str, Any], **changes: Any) -> Spec:
    return Spec.model_validate({
        "name": "real",
        "model": {"path": str(FETCHED / "minilm"), "dtype": changes.get("dtype", "float32")},
        "task": {"n_eval": 48, "max_length": 48, **task},
        "adapter": {"target_modules": ["query", "value"]},
        "head": {"in_kernel": False},
        "kernel": {"outputs": changes.get("outputs", "margin"), "eigenvectors": True},
        "grid": {
            "lambdas": {"logspace": {"start": 1e-4, "stop": 10.0, "count": 6}, "scale": "trace"},
            "layer_sets": ["all_layers", {"layers": [[0], [5]]}], "n_train": [96],
        },
        "compute": {"executor": "inline", "shard_examples": 64},
        "results": {"folder": str(folder)},
    })  # fmt: skip


RATED = {"data": str(FETCHED / "amazon.parquet"), "label": "rating", "kind": "classification", "sign_cut": 0.5}


@needs_fetched
def test_rated_sentences_are_told_apart_and_float32_does_not_change_that(tmp_path):
    numbers = {}
    for dtype in ("float32", "float64"):
        run(sweep(tmp_path / dtype, RATED, dtype=dtype), ROOT, Quiet())
        numbers[dtype] = orchestrator.load(tmp_path / dtype).cells.to_pandas()
    single, double = numbers["float32"], numbers["float64"]
    for column in ("sigma_max", "trace", "eval_loss", "train_loss", "leave_one_out_loss", "degrees_of_freedom"):
        assert np.allclose(single[column], double[column], rtol=1e-4), column
    # Rounding E of J moves its singular values by at most |E|, which is what the noise floor is the square of.
    moved = (np.sqrt(single["sigma_min"]) - np.sqrt(double["sigma_min"])).abs()
    assert (moved <= np.sqrt(single["noise_floor"])).all()
    best = double.loc[double["eval_loss"].idxmin()]
    assert best["eval_accuracy"] > best["majority_accuracy"]


@needs_fetched
def test_ratings_are_predicted_by_regression(tmp_path):
    task = {"data": str(FETCHED / "movies.parquet"), "label": "rating", "kind": "regression"}
    run(sweep(tmp_path, task, outputs="full"), ROOT, Quiet())
    summary = summarize(orchestrator.load(tmp_path))
    assert summary.metric == "pearson"
    best = max(found.mean for each in summary.layer_sets if (found := each.numbers["eval_pearson"]) is not None)
    assert best > 0.2, "96 rated sentences say something about the next 48"


@needs_fetched
@pytest.mark.skipif(not (TASKS / "sst2").is_dir(), reason=f"needs SST-2 in {TASKS / 'sst2'} (NTKSWEEP_TASKS)")
def test_a_task_with_its_own_validation_split(tmp_path):
    task = {"data": str(TASKS / "sst2"), "kind": "classification", "eval_split": "validation"}
    ending = run(sweep(tmp_path, task), ROOT, Quiet())
    assert ending.plan.variants[0].survey.pool_eval == 872
    cells = orchestrator.load(tmp_path).cells.to_pandas()
    assert (cells["parameter_distance"] <= cells["parameter_distance_bound"]).all()
    assert cells["eval_accuracy"].max() > 0.55
