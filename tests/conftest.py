"""Settings for every test process and the processes that it starts, and the model of most sweeps."""

import os
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from hypothesis import settings

from orchestrator.loading import no_garbage

# Tests run in several processes on few processors; tiny products on contended threads take twenty times as long.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
# nothing is fetched from the network
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Hundreds of processes are started, each of which would compile the modules that it loads.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# no test may rest on what another one found out
os.environ["NTKSWEEP_CACHE"] = ""

# A busy machine is slow without being wrong; where nobody watches, a failure must come again when it is run again.
# Every other run draws new examples: what one of them finds joins its test as an @example, see CONTRIBUTING.md.
settings.register_profile("ntksweep", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("ntksweep")


# What the moments are drawn from at which tests kill processes. The first process of a run chooses for those that it
# starts, so that all have the same one also at midnight.
os.environ.setdefault("NTKSWEEP_KILL_SEED", date.today().isoformat())


def pytest_report_header() -> str:
    """Say what makes the kills of this run happen again."""
    return f"moments of kills: NTKSWEEP_KILL_SEED={os.environ['NTKSWEEP_KILL_SEED']}"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Load the files of tests, and the libraries that they use, without garbage collection."""
    with no_garbage():
        return (yield)


RUNS_SWEEPS = {"run_spec", "ntksweep"}
"""Imports of test files that run sweeps, or commands that do."""

SWEEPS_RUN = {"finished", "finished_regression", "swept"}
"""Fixtures that are sweeps which were run."""


@pytest.hookimpl(tryfirst=True)  # xdist looks at groups in a hook of its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the tests of a file to one process unless they are in a group: it makes once what they share.

    Those of a file that runs sweeps are marked: `make test-fast` leaves them out.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        if isinstance(item, pytest.Function) and (
            RUNS_SWEEPS & vars(item.module).keys() or SWEEPS_RUN & set(item.fixturenames)
        ):
            item.add_marker(pytest.mark.sweep)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT; nobody changes it."""
    from tests.tiny_models import save_tiny  # torch counts the threads that it may take when it is loaded

    return save_tiny("bert", tmp_path_factory.mktemp("model") / "tiny-bert")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished classification with predictions and eigenvectors; nobody changes its results."""
    from tests.orchestrator.sweeps import make_sweep, run_spec

    changes = {"grid.seeds": [0, 1], "results.predictions": True, "kernel.eigenvectors": True}
    path = make_sweep(tmp_path_factory.mktemp("finished"), changes, model=tiny_model)
    run_spec(path)
    return path


@pytest.fixture(scope="session")
def finished_regression(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished regression with two training-set sizes, one of them beyond the parameters of a set."""
    from tests.orchestrator.sweeps import make_sweep, run_spec

    changes = {
        "task.kind": "regression", "task.label": "rating", "head.in_kernel": False, "adapter.rank": 1,
        "grid.n_train": [8, 24],
        "grid.layer_sets": [{"groups": [["0.query"]]}, "all_layers"], "results.predictions": True,
    }  # fmt: skip
    path = make_sweep(tmp_path_factory.mktemp("regression"), changes, model=tiny_model)
    run_spec(path)
    return path
