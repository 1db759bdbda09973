"""Ray comes back on a node where it was killed, unless that happens again and again."""

from pathlib import Path

import pytest

from slurm.devcluster import DevCluster
from tests.cluster.ray_jobs import WHO_IS_ALIVE, RayJob, kill, pids_of
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.xdist_group("cluster-b")

USE_TOO_MUCH_ON_N2 = """
import json, os, ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=1, max_retries=0, resources={"node:127.0.1.2": 0.1})
def use():
    import time
    memory = bytearray(3 << 30)
    time.sleep(60)
try:
    ray.get(use.remote())
except ray.exceptions.RayError as error:
    print(json.dumps(type(error).__name__))
"""


def test_a_node_is_started_again_three_times_whatever_is_killed_there(
    cluster: DevCluster, tmp_path: Path, scratch: Path
) -> None:
    job = RayJob(cluster, tmp_path, scratch).submit("--nodelist=n1,n2,n3").ready()
    lost_and_back = []
    for node, address, program in (
        ("n2", "127.0.1.2", "raylet/raylet"),
        ("n3", "127.0.1.3", "slurm.ray.start"),
        ("n2", "127.0.1.2", "outer watcher"),
        ("n3", "127.0.1.3", "inner watcher"),
        ("n2", "127.0.1.2", "srun"),
    ):
        kill(cluster, _victim(cluster, program, node, address))
        lost_and_back += [(node, "lost", False), (node, "restarted", False)]
        wait_until(lambda: job.events == lost_and_back)  # noqa: B023  # called here only
        alive = sorted(each["NodeManagerAddress"] for each in job.driver(WHO_IS_ALIVE))
        assert set(alive) == {"127.0.1.1", "127.0.1.2", "127.0.1.3"}
        # The one before is gone altogether, with its folder, not merely out of sight.
        wait_until(lambda: len(pids_of(cluster, "raylet/raylet")) == 3)
        wait_until(lambda: len(list(scratch.iterdir())) == 3)

    kill(cluster, _victim(cluster, "raylet/raylet", "n2", "127.0.1.2"))
    wait_until(lambda: job.events == [*lost_and_back, ("n2", "lost", False), ("n2", "given up", False)])
    assert job.stop()["error"] == ""
    assert list(scratch.iterdir()) == []


def _victim(cluster: DevCluster, program: str, node: str, address: str) -> int:
    if program == "srun":
        return pids_of(cluster, "srun", f"--nodelist={node}")[0]
    if program.endswith("watcher"):
        outer, inner = (
            pid
            for pid in pids_of(cluster, "slurm.ray.node", f"--address={address}")
            if pid not in pids_of(cluster, "srun")
        )
        return outer if program.startswith("outer") else inner
    return pids_of(cluster, program, f"address={address}")[0]


def test_a_node_that_uses_more_memory_than_it_has_is_reported_as_out_of_memory(
    cluster: DevCluster, tmp_path: Path, scratch: Path
) -> None:
    job = RayJob(cluster, tmp_path, scratch).submit("--nodelist=n1,n2").ready()
    job.driver(USE_TOO_MUCH_ON_N2)
    wait_until(lambda: job.events == [("n2", "lost", True), ("n2", "restarted", False)])
    # Slurm's SIGKILL leaves the folder of the first; the second clears it.
    assert len(list(scratch.iterdir())) == 2
    assert job.stop()["error"] == ""
    assert list(scratch.iterdir()) == []
