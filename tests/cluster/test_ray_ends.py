"""However an allocation ends, nothing stays of the Ray that ran in it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.devcluster import DevCluster
from tests.cluster.ray_jobs import RayJob, kill, pids_of
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.xdist_group("cluster-b")


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
