"""The small sweep that the tests of this folder disturb, and an undisturbed run of it."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tests.faults.driving import Command, ntksweep
from tests.faults.tables import numbers
from tests.orchestrator.sweeps import make_sweep
from tests.tiny_models import save_tiny

SWEEP = {
    "model.dtype": "float32",
    "grid.lambdas": {"values": [0.01, 0.1, 1.0]},
    "grid.layer_sets": ["each_layer", "all_layers", {"groups": [["head"]]}],
    "grid.seeds": [0, 1],
    "grid.n_train": [12],
    "results.predictions": True,
}
"""Two seeds, ten capture shards, tiles of them, dual and primal kernels, and every table."""

NewSweep = Callable[..., Path]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and data that nobody changes."""
    folder = tmp_path_factory.mktemp("shared")
    save_tiny("bert", folder / "model")
    make_sweep(folder, SWEEP, model=folder / "model")
    return folder


@pytest.fixture
def new_sweep(shared: Path, tmp_path: Path) -> NewSweep:
    """Make the small sweep in a folder of its own; return the spec's path."""

    def make(changes: dict[str, object] | None = None, *, folder: Path = tmp_path) -> Path:
        here = {"task.data": str(shared / "data.parquet")}
        return make_sweep(folder, SWEEP | here | (changes or {}), model=shared / "model")

    return make


@pytest.fixture(scope="session")
def undisturbed(shared: Path) -> Path:
    """The results folder of the small sweep, run without disturbance."""
    answer = ntksweep("run", "sweep.yaml", folder=shared)
    assert answer.status == 0, answer.output
    return shared / "results"


@pytest.fixture(scope="session")
def expected(undisturbed: Path) -> dict[str, pa.Table]:
    """The tables of the undisturbed run, without provenance."""
    return numbers(undisturbed)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Command]:
    """Start a command in this test's folder."""
    return lambda *arguments: Command(*arguments, folder=tmp_path)
