"""Ray runs over the nodes of an allocation, for its owner alone, beside other allocations."""

import shlex
from pathlib import Path

import pytest

from slurm.devcluster import DevCluster
from tests.cluster.ray_jobs import (
    ON_EVERY_WORKER,
    WHO_IS_ALIVE,
    RayJob,
    listening,
    pids_of,
    processes,
    python_for,
)
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.xdist_group("cluster-b")


POST = """
import http.client, sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], data=b"{}"), timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except (OSError, http.client.HTTPException):
    print("none")
"""


def test_two_nodes_are_alive_and_nothing_is_left_when_the_allocation_ends(
    cluster: DevCluster, tmp_path: Path, scratch: Path
) -> None:
    before, open_before = processes(cluster), listening(cluster)
    job = RayJob(cluster, tmp_path, scratch).submit("--nodes=2", gpus=2).ready()

    nodes = job.driver(WHO_IS_ALIVE)
    assert len(nodes) == 2
    assert all(node["Resources"]["CPU"] == 2 and node["Resources"]["GPU"] == 2 for node in nodes)
    assert all(node["Resources"]["object_store_memory"] == 80 << 20 for node in nodes)
    # Slurm's warning before the time limit can go to all steps; it is meant for the batch process alone.
    cluster.run(["scancel", "--signal=USR2", job.job])
    workers = job.driver(ON_EVERY_WORKER)
    assert len({worker["SLURMD_NODENAME"] for worker in workers}) == 2
    assert {worker["SLURM_JOB_ID"] for worker in workers} == {job.job}
    assert {worker["PYTORCH_ALLOC_CONF"] for worker in workers} == {"expandable_segments:True"}
    # Slurm numbers the GPUs of a node; each worker has one of them for itself.
    seen = sorted((worker["SLURMD_NODENAME"], worker["CUDA_VISIBLE_DEVICES"]) for worker in workers)
    assert [gpu for _, gpu in seen] == ["0", "1", "0", "1"]

    ended = job.stop()
    for node in {worker["SLURMD_NODENAME"] for worker in workers}:
        assert "seen by a worker" in (tmp_path / "logs" / f"ray-{node}.log").read_text()
    assert ended["error"] == ""
    assert len(ended["ended_nodes"]) == 2
    wait_until(lambda: processes(cluster).keys() <= before.keys())
    assert listening(cluster) <= open_before
    assert list(scratch.iterdir()) == []


def test_no_process_or_file_shows_the_token_to_another_user_and_none_connects_without_it(
    cluster: DevCluster, tmp_path: Path, scratch: Path
) -> None:
    open_before = listening(cluster)
    job = RayJob(cluster, tmp_path, scratch).submit().ready()
    job.driver(WHO_IS_ALIVE)
    token = job.environment["RAY_AUTH_TOKEN"]

    assert not any(token in words for words in processes(cluster).values())
    environments = cluster.run(["sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n'"], check=False).stdout
    assert token in environments  # where it is: root sees it there
    seen = cluster.run(
        ["sh", "-c", f"cat /proc/[0-9]*/environ; find {scratch} /dev/shm -type f -exec cat {{}} +; ls -R {scratch}/*"],
        *(),
        user="nobody", cwd=Path("/"), check=False,
    ).stdout  # fmt: skip
    assert token not in seen
    assert "session" not in seen
    on_disk = cluster.run(["grep", "-rlF", token, str(scratch), str(tmp_path / "logs")], check=False)
    assert on_disk.stdout == ""

    for address in listening(cluster) - open_before:
        url = f"http://127.0.1.1:{address.rpartition(':')[2]}/get_or_create_runtime_env"
        answer = cluster.run(["python3", "-c", POST, url], user="nobody", cwd=Path("/"), check=False)
        assert answer.stdout.strip() in ("401", "none"), url

    python = _python_of_nobody(cluster)
    connect = f"import ray; ray.init(address='{job.environment['RAY_ADDRESS']}')"
    for more in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        refused = cluster.run(
            ["sh", "-c", "HOME=/ " + shlex.join([*python, "-c", connect])],
            *(),
            user="nobody", cwd=Path("/"), environment={"RAY_gcs_server_port_wait_time_s": "1", **more}, check=False,
        )  # fmt: skip
        assert refused.returncode != 0
        assert "AuthenticationError" in refused.stderr + refused.stdout
    assert job.stop()["error"] == ""


def test_allocations_of_two_users_on_one_node_do_not_meet(
    cluster: DevCluster, tmp_path: Path, open_folder: Path, scratch: Path
) -> None:
    python = _python_of_nobody(cluster)
    mine = RayJob(cluster, tmp_path, scratch).submit("--nodelist=n1")
    theirs = RayJob(cluster, open_folder, scratch).submit("--nodelist=n1", python=python, user="nobody")
    gpus: list[str] = []
    for job in (mine.ready(), theirs.ready()):
        assert len(job.driver(WHO_IS_ALIVE)) == 1
        assert {worker["SLURM_JOB_ID"] for worker in job.driver(ON_EVERY_WORKER)} == {job.job}
        # Two workers share the one GPU of a job.
        (of_job,) = {worker["CUDA_VISIBLE_DEVICES"] for worker in job.driver(ON_EVERY_WORKER)}
        gpus.append(of_job)
    assert sorted(gpus) == ["0", "1"]
    assert mine.environment["RAY_ADDRESS"] != theirs.environment["RAY_ADDRESS"]

    assert theirs.stop()["error"] == ""
    assert len(mine.driver(WHO_IS_ALIVE)) == 1
    assert mine.stop()["error"] == ""
    assert list(scratch.iterdir()) == []


def test_the_user_is_told_what_a_node_says_when_ray_does_not_start(
    cluster: DevCluster, tmp_path: Path, scratch: Path
) -> None:
    job = RayJob(cluster, tmp_path, scratch / "missing").submit("--nodelist=n2")
    error = job.ended()["error"]
    assert error.startswith("RayStartError: Ray did not start on node n2")
    assert f"no temporary folder can be made in {scratch}/missing" in error
    assert pids_of(cluster, "slurm.ray.node") == []


def _python_of_nobody(cluster: DevCluster) -> list[str]:
    python = python_for(cluster, "nobody")
    if python is None:
        pytest.skip("another user of this machine can run no Python that has these packages")
    return python
