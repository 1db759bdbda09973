"""A Slurm cluster for the tests of this folder, which are skipped where none can run and fail there under CI."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.devcluster import DevCluster
from slurm.devcluster.errors import CannotRunHereError

_SECONDS = 60


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
