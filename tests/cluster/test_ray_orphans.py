"""Ray ends even where Slurm's own daemon dies."""

from pathlib import Path

import pytest

from slurm.devcluster import DevCluster
from tests.cluster.ray_jobs import RayJob, pids_of, short_folder
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.xdist_group("cluster-c")


def test_a_node_whose_slurmd_died_is_given_up_and_its_ray_ends_there(cluster: DevCluster, tmp_path: Path) -> None:
    with short_folder() as scratch:
        job = RayJob(cluster, tmp_path, scratch).submit("--nodelist=n1,n2", "--no-kill").ready()
        cluster.kill("slurmd.n2")
        wait_until(lambda: job.events == [("n2", "lost", False), ("n2", "given up", False)])
        wait_until(lambda: pids_of(cluster, "ray", "127.0.1.2") == [])
        ended = job.stop()
        assert ended["error"] == ""
        assert ended["ended_nodes"] == ["n1"]  # of n2 nothing is known
        assert list(scratch.iterdir()) == []
