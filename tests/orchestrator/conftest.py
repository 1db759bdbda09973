"""Sweeps that are run once and then only looked at."""

from pathlib import Path

import pytest

from tests.orchestrator.sweeps import make_sweep, run_spec


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished classification with predictions and eigenvectors; nobody changes its results."""
    changes = {"grid.seeds": [0, 1], "results.predictions": True, "kernel.eigenvectors": True}
    path = make_sweep(tmp_path_factory.mktemp("finished"), changes, model=tiny_model)
    run_spec(path)
    return path


@pytest.fixture(scope="session")
def finished_regression(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished regression with two training-set sizes, one of them beyond the parameters of a set."""
    changes = {
        "task.kind": "regression", "task.label": "rating", "head.in_kernel": False, "adapter.rank": 1,
        "grid.n_train": [8, 24],
        "grid.layer_sets": [{"groups": [["0.query"]]}, "all_layers"], "results.predictions": True,
    }  # fmt: skip
    path = make_sweep(tmp_path_factory.mktemp("regression"), changes, model=tiny_model)
    run_spec(path)
    return path
