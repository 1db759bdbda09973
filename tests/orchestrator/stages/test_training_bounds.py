"""What regularization proves of training, at its end and on the way, and runs that break it."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from orchestrator.spec import read_spec
from orchestrator.stages.compare import bounds
from orchestrator.stages.finetune import runs_of
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.stages.trained_sweeps import DESCENT, TRAINING, training
from tests.orchestrator.sweeps import results_of, run_spec

GRID: dict[str, Any] = {
    "grid.layer_sets": ["all_layers"], "grid.lambdas": {"values": [0.5, 8.0], "scale": "absolute"},
}  # fmt: skip
N = 10


def tables(folder: Path, model: Path, settings: dict[str, Any], **changes: Any) -> tuple[Any, Any]:
    spec = training(folder, model, settings, **GRID, **changes)
    assert not run_spec(spec).report.failures
    results = results_of(spec)
    return results.cells.to_pandas().set_index("cell_id"), results.trajectories.to_pandas()


@pytest.mark.parametrize("rate", [0.02, 0.6], ids=["falling", "rising"])
def test_the_bound_stands_while_the_objective_has_only_fallen(rate: float, tmp_path: Path, tiny_model: Path):
    steps = {"epochs": 12, "num_evaluations": 12, "learning_rate": rate}
    cells, trajectories = tables(tmp_path, tiny_model, DESCENT | steps)
    rose = 0
    for cell, rows in trajectories.groupby("cell_id"):
        strength = cells.loc[cell, "lambda"]
        objective = rows["finetune_train_loss"] + strength / (2 * N) * rows["finetune_distance"] ** 2
        risen = np.cumsum(np.diff(objective, prepend=np.inf) > 0)
        assert rows["finetune_loss_rises"].tolist() == risen.tolist()
        bound = np.sqrt(2 * N * rows["finetune_train_loss"].iloc[0] / strength)
        fallen = rows[risen == 0]
        np.testing.assert_allclose(fallen["finetune_distance_bound"].astype(float), bound, rtol=1e-12)
        assert (fallen["finetune_distance"] <= bound).all()
        assert rows[risen > 0]["finetune_distance_bound"].isna().all()
        (ended,) = risen[rows["step"] == cells.loc[cell, "finetune_steps"]]
        assert cells.loc[cell, "finetune_loss_rises"] == ended
        b = cells.loc[cell, "finetune_curvature"]
        limit = b * N * rows["finetune_train_loss"].iloc[0] / strength
        assert cells.loc[cell, "finetune_linearization_limit"] == pytest.approx(limit, rel=1e-12)
        rose += risen[-1] > 0
    assert (rose > 0) == (rate > 0.1)


def test_cross_entropy_has_the_bound_of_its_own_loss(tmp_path: Path, tiny_model: Path):
    cells, trajectories = tables(tmp_path, tiny_model, TRAINING | {"loss": "cross_entropy"})
    for cell, rows in trajectories.groupby("cell_id"):
        bound = cells.loc[cell, "finetune_distance_bound"]
        # Before training the head's outputs are small: nearly log 2 an example.
        R_0 = bound**2 * cells.loc[cell, "lambda"] / 2
        assert 0.5 * N * np.log(2) < R_0 < 2 * N * np.log(2)
        assert (rows["finetune_distance"] <= bound).all()
        for model in ("finetune", "linearized"):
            assert N * rows[f"{model}_train_cross_entropy"].iloc[0] == pytest.approx(R_0, rel=1e-12)


@pytest.mark.parametrize("outputs", ["full", "margin"])
def test_cells_that_lower_the_cross_entropy_have_columns_of_it(outputs: str, tmp_path: Path, tiny_model: Path):
    spec = training(tmp_path, tiny_model, TRAINING | {"loss": "cross_entropy"}, **GRID, **{"kernel.outputs": outputs})
    ran = run_spec(spec)
    assert not ran.report.failures
    store = ResultsFolder(read_spec(spec).folder).artifacts()
    (dataset,), trainings = (
        [each for each in ran.plan.stages if each.kind == kind] for kind in ("dataset", "finetune")
    )
    labels = store.open("dataset", dataset.stage_id)
    cells = results_of(spec).cells.to_pandas().set_index("lambda")
    for stage, split in product(trainings, ("train", "eval")):
        trained, (run,) = store.open("finetune", stage.stage_id), runs_of(stage)
        model = "linearized" if run.parameters.model == "linearized" else "finetune"
        classes = np.array(labels.array(f"{split}.labels")).astype(int)
        for cell, kept in enumerate(trained.array("0.kept")):
            logits = trained.array(f"0.{split}_outputs")[kept, cell].astype(np.float64)
            if outputs == "margin":
                logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
            expected = -log_softmax(logits, axis=1)[np.arange(len(classes)), classes].mean()
            found = cells.loc[trained.array("0.lambda")[cell], f"{model}_{split}_cross_entropy"]
            assert found == pytest.approx(expected, rel=1e-10)


def test_cells_that_lower_squares_have_no_cross_entropy(tmp_path: Path, tiny_model: Path):
    for table in tables(tmp_path, tiny_model, TRAINING):
        assert table.filter(like="cross_entropy").isna().all(axis=None)
        assert table.filter(like="cross_entropy").shape[1] == 4


def test_other_ways_to_hold_the_weights_have_no_bound(tmp_path: Path, tiny_model: Path):
    cells, trajectories = tables(tmp_path, tiny_model, TRAINING | {"regularizer": "spd"})
    for table in (cells, trajectories):
        assert table[["finetune_distance_bound", "finetune_loss_rises"]].isna().all(axis=None)
    assert cells["finetune_linearization_limit"].isna().all()


def test_a_distance_beyond_the_bound_on_the_way_fails_the_run(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bounds, "minimizer_distance_bound", lambda loss, lambdas: np.array([1e-6]))
    report = run_spec(training(tmp_path, tiny_model, DESCENT, **GRID)).report
    assert {failure.stage.kind for failure in report.failures} == {"compare"}
    for failure in report.failures:
        assert failure.message.count("|theta - theta_0| is") == 1
