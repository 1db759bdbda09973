"""Rows of `trajectories`: one a look while a cell is trained, whichever cells are trained beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.results.findings.linearity import linearity
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, run_spec

EPOCHS, EVERY, PATIENCE = 20, 2, 2
STOPPING: dict[str, Any] = {
    "optimizer": "gradient_descent", "learning_rate": 0.3, "epochs": EPOCHS, "batch_size": 5,
    "num_evaluations": EPOCHS // EVERY, "early_stopping_patience": PATIENCE, "kernel_examples": 2,
}  # fmt: skip
GRID: dict[str, Any] = {
    # The step is far too long for the pull of the last one, so that it diverges; the others stop at different looks.
    "grid.lambdas": {"values": [1e-3, 30.0, 100.0, 1e5], "scale": "absolute"},
    "grid.layer_sets": [{"layers": [[1]]}], "grid.seeds": [4, 5],
}  # fmt: skip


def swept(folder: Path, model: Path, settings: dict[str, Any], **changes: Any) -> Path:
    spec = make_sweep(folder, {"finetune": settings} | GRID | changes, model=model)
    assert not run_spec(spec).report.failures
    return spec


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep, each of whose cells was trained by itself; nobody changes its results."""
    return swept(tmp_path_factory.mktemp("alone"), tiny_model, STOPPING | {"stacked_cells": 1})


def trajectories(spec: Path) -> pd.DataFrame:
    return results_of(spec).trajectories.to_pandas()


@pytest.mark.parametrize(
    "grouping", [{"stacked_cells": 2}, {"stacked_cells": 8, "stacked_across": ["seeds"]}], ids=["two", "all"]
)
def test_rows_are_the_same_however_cells_are_grouped(
    grouping: dict[str, Any], tmp_path: Path, tiny_model: Path, alone: Path
):
    found, expected = trajectories(swept(tmp_path, tiny_model, STOPPING | grouping)), trajectories(alone)
    pd.testing.assert_frame_equal(found, expected, check_exact=False, rtol=1e-6, atol=1e-9)


def test_a_cell_has_a_row_a_look_while_one_of_its_models_is_trained_and_none_after(alone: Path):
    rows = trajectories(alone).set_index("cell_id")
    cells = results_of(alone).cells.to_pandas().set_index("cell_id")
    ends: dict[str, list[int]] = {"finetune": [], "linearized": []}
    for cell, row in cells.iterrows():
        steps = rows.loc[cell, "step"].tolist()
        for model, found in ends.items():
            last = {
                "finished": EPOCHS,
                "stopped early": row[f"{model}_steps"] + PATIENCE * EVERY,
                # It was last seen at the last look before it failed, or at the one at which that was found.
                "diverged": row[f"{model}_failed_step"] // EVERY * EVERY,
            }[row[f"{model}_status"]]
            found.append(int(last))
            for column in ("train_loss", "eval_accuracy", "distance", "pulled"):
                assert rows.loc[cell].set_index("step")[f"{model}_{column}"].last_valid_index() == last, column
                assert rows.loc[cell].set_index("step").loc[:last, f"{model}_{column}"].notna().all()
        both = min(found[-1] for found in ends.values())
        assert steps == list(range(0, max(found[-1] for found in ends.values()) + 1, EVERY))
        assert rows.loc[cell].set_index("step")["difference_eval_relative"].last_valid_index() == both
    # The cells end at different looks, and the two models of one do, or this would show nothing.
    assert len(set(ends["finetune"])) > 3
    assert ends["finetune"] != ends["linearized"]
    assert set(cells["finetune_status"]) == {"stopped early", "diverged"}
    assert "finished" in set(cells["linearized_status"])


def test_the_share_of_updates_is_that_of_the_rows(alone: Path):
    cells = results_of(alone).cells.to_pandas().set_index("cell_id")
    for cell, rows in trajectories(alone).groupby("cell_id"):
        counts = rows.dropna(subset="finetune_pulled")
        since = counts["step"].diff().fillna(0)
        for column in ("finetune_pulled", "finetune_pulled_tensors"):
            share = (counts[column] * since).sum() / since.sum()
            assert cells.loc[cell, column] == pytest.approx(share, rel=1e-12)
        # Of l2sp every update but the first, when nothing has moved.
        assert cells.loc[cell, "finetune_pulled"] == pytest.approx(1 - 1 / since.sum(), rel=1e-12)


def test_a_cell_in_which_lambda_never_acts_says_so(tmp_path: Path, tiny_model: Path):
    settings = STOPPING | {
        "regularizer": "selective",
        "learning_rate": 0.02,
        "early_stopping_patience": None,
        "kernel_examples": 0,
    }
    spec = swept(tmp_path, tiny_model, settings, **{"grid.lambdas": {"values": [0.02, 40.0], "scale": "absolute"}})
    cells = results_of(spec).cells.to_pandas()
    assert (cells[["linearized_pulled", "linearized_pulled_tensors", "finetune_pulled"]] == 0).all(axis=None)
    for _, of_seed in cells.groupby("seed"):
        assert np.ptp(of_seed["linearized_distance"]) < 1e-14
    assert linearity(cells)["n_never_pulled"].tolist() == [2, 2]
    answer = ntksweep("findings", tmp_path / "results", "--output", tmp_path / "found")
    assert answer.status == 0, answer.errors
    assert "In 4 of the trained cells λ never acted" in (tmp_path / "found" / "README.md").read_text()
