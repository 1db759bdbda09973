"""A Slurm cluster for the tests of this folder, which are skipped where none can run and fail there under CI."""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from slurm.devcluster import DevCluster
from slurm.devcluster.errors import CannotRunHereError
from tests.cluster.login import Login
from tests.cluster.ray_jobs import listening, processes, short_folder
from tests.cluster.submitted import SWEEP, Submitted
from tests.cluster.waiting import wait_until
from tests.faults.driving import ntksweep
from tests.faults.tables import numbers
from tests.orchestrator.sweeps import make_sweep
from tests.tiny_models import save_tiny

_SECONDS = 60

NewSubmitted = Callable[..., Submitted]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """A cluster of three nodes with accounting, shared by all tests of one process.

    It dies with this process, whatever ends that.
    """
    try:
        started = DevCluster.up(tmp_path_factory.mktemp("devcluster"), tied=True)
    except CannotRunHereError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield started
    started.down()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which every user of the machine may write; pytest's own ones may be entered by their owner alone."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ntksweep-test-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that nobody changes."""
    return save_tiny("bert", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, pa.Table]:
    """The tables, without provenance, of the small sweep run in one process without a cluster."""
    spec = make_sweep(tmp_path_factory.mktemp("local"), SWEEP | {"compute.executor": "inline"}, model=tiny_model)
    answer = ntksweep("run", spec, folder=spec.parent)
    assert answer.status == 0, answer.output
    return numbers(spec.parent / "results")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files of nodes, with a path as short as there."""
    with short_folder() as folder:
        yield folder


@pytest.fixture
def new_sweep(cluster: DevCluster, tmp_path: Path, scratch: Path, tiny_model: Path) -> NewSubmitted:
    """Make the small sweep, with some keys of its spec changed, in a folder of its own."""

    def make(changes: dict[str, object] | None = None, *, name: str = "sweep") -> Submitted:
        return Submitted(cluster, tmp_path / name, tiny_model, changes, scratch=scratch)

    return make


@pytest.fixture
def login(cluster: DevCluster, tmp_path: Path) -> Login:
    """A user on the cluster's login node."""
    return Login(cluster, tmp_path / "login")


@pytest.fixture
def nothing_left(cluster: DevCluster, scratch: Path) -> Callable[[], None]:
    """A function that waits until no process, port or folder is there that was not when the test began."""
    before, open_before = processes(cluster), listening(cluster)

    def left() -> list[str]:
        # Daemons that the test killed and started again have other numbers, and listen on the same ports.
        new = [words for pid, words in processes(cluster).items() if pid not in before]
        return [words for words in new if not re.match(r"slurm(ctld|d|dbd)\b|: slurmscriptd", words)]

    def check() -> None:
        with suppress(AssertionError):
            wait_until(lambda: not left())
        assert left() == []
        assert listening(cluster) <= open_before
        assert list(scratch.iterdir()) == []

    return check


@pytest.fixture(scope="session")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _user_cache(_kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the commands of these tests one cache: most sweeps have one model and one dataset, surveyed once."""
    monkeypatch.setenv("NTKSWEEP_CACHE", str(_kept))


@pytest.fixture(autouse=True)
def _tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test that used the cluster: no jobs, all daemons, all nodes idle."""
    yield
    if "cluster" in request.fixturenames:
        tidy(request.getfixturevalue("cluster"))


def tidy(cluster: DevCluster) -> None:
    """Bring a cluster back into the state that it started in."""
    running = cluster.daemons()
    # Killed ones: in the order in which a cluster starts them.
    for name in [name for name in cluster.daemon_names if name not in running]:
        cluster.start(name)
    _cancel_jobs(cluster)
    _resume_nodes(cluster)


def _cancel_jobs(cluster: DevCluster) -> None:
    end = time.monotonic() + _SECONDS
    while jobs := cluster.run(["squeue", "--noheader", "--format=%A"]).stdout.split():
        assert time.monotonic() < end, f"jobs {jobs} are still there {_SECONDS} s after they were cancelled"
        cluster.run(["scancel", "--signal=KILL", "--full", *jobs], check=False)
        cluster.run(["scancel", *jobs], check=False)
        time.sleep(0.2)


def _resume_nodes(cluster: DevCluster) -> None:
    end = time.monotonic() + _SECONDS
    while others := cluster.run(["sinfo", "--noheader", "--Node", "--format=%N %T"]).stdout.splitlines():
        for node, state in (line.split() for line in set(others)):
            if state.startswith(("drain", "down")):
                cluster.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)
        if all(line.endswith(" idle") for line in others):
            return
        assert time.monotonic() < end, f"nodes do not become idle again: {sorted(set(others))}"
        time.sleep(0.2)
