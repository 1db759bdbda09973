"""A finished sweep over every set of four layers; nobody changes its results."""

from pathlib import Path

import pytest

from tests.orchestrator.results.selection.swept import CHANGES, LAYERS
from tests.orchestrator.sweeps import make_sweep, run_spec
from tests.tiny_models import save_tiny


@pytest.fixture(scope="session")
def deep_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("bert", tmp_path_factory.mktemp("deep") / "model", layers=LAYERS, hidden=8)


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory, deep_model: Path) -> Path:
    """The spec of a finished sweep over every set of four layers; nobody changes its results."""
    path = make_sweep(tmp_path_factory.mktemp("swept"), CHANGES, model=deep_model)
    run_spec(path)
    return path
