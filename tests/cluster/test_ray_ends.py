"""However an allocation ends, nothing stays of the Ray that ran in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm.devcluster import DevCluster
from tests.cluster.ray_jobs import RayJob, kill, listening, pids_of, processes, short_folder
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.xdist_group("cluster-2")


@pytest.fixture
def scratch() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def nothing_left(cluster: DevCluster, scratch: Path) -> Iterator[Callable[[], None]]:
    """A function that waits until no process, port or folder is there that was not when the test began."""
    before, open_before = processes(cluster), listening(cluster)

    def check() -> None:
        wait_until(lambda: processes(cluster).keys() <= before.keys())
        assert listening(cluster) <= open_before
        assert list(scratch.iterdir()) == []

    yield check


def test_the_loss_of_the_head_ends_the_rays_of_all_nodes(
    cluster: DevCluster, tmp_path: Path, scratch: Path, nothing_left: Callable[[], None]
) -> None:
    job = RayJob(cluster, tmp_path, scratch).submit("--nodelist=n1,n2").ready()
    kill(cluster, pids_of(cluster, "gcs_server")[0])
    ended = job.ended()
    assert ended["error"].startswith("HeadLostError: Ray ended on n1")
    assert ended["ended_nodes"] == ["n1", "n2"]
    nothing_left()


def test_nothing_is_left_when_the_batch_process_is_killed(
    cluster: DevCluster, tmp_path: Path, scratch: Path, nothing_left: Callable[[], None]
) -> None:
    job = RayJob(cluster, tmp_path, scratch).submit("--nodelist=n1,n2").ready()
    kill(cluster, job.batch_process)
    wait_until(lambda: job.has_ended)
    nothing_left()


@pytest.mark.parametrize("command", [["scancel"], ["scontrol", "requeuehold"]], ids=["cancelled", "requeued"])
def test_nothing_is_left_when_slurm_ends_the_job(
    cluster: DevCluster, tmp_path: Path, scratch: Path, nothing_left: Callable[[], None], command: list[str]
) -> None:
    job = RayJob(cluster, tmp_path, scratch).submit("--nodelist=n1,n2", "--requeue").ready()
    cluster.run([*command, job.job])
    nothing_left()
