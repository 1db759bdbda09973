"""A finished sweep whose cells were trained."""

from pathlib import Path

import pytest

from tests.orchestrator.stages.trained_sweeps import training
from tests.orchestrator.sweeps import run_spec


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep whose cells were trained; nobody changes its results."""
    path = training(tmp_path_factory.mktemp("trained"), tiny_model)
    assert not run_spec(path).report.failures
    return path
