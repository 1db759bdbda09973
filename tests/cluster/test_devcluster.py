"""The development cluster behaves like the Slurm of a cluster that users share."""

from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest

from slurm.devcluster import DevCluster
from slurm.devcluster.errors import CommandFailedError, DaemonError, DevClusterError
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.xdist_group("cluster-b")


def submit(cluster: DevCluster, script: str, *options: str, user: str | None = None, folder: Path) -> str:
    """Submit a job that writes into folder/JOB.txt; return its number."""
    command = ["sbatch", "--parsable", "--output=%j.txt", *options, f"--wrap={script}"]
    # Slurm hands the job the environment; not every user may write where this process keeps its temporary files.
    return cluster.run(command, user=user, cwd=folder, environment={"TMPDIR": "/tmp"}).stdout.strip()


def state(cluster: DevCluster, job: str) -> str:
    """Return the state that the controller has a job in."""
    return cluster.run(["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"]).stdout.strip()


def test_a_step_runs_on_all_nodes_at_once(cluster: DevCluster) -> None:
    names = cluster.run(["srun", "--nodes=3", "sh", "-c", "echo $SLURMD_NODENAME"]).stdout.split()
    assert sorted(names) == ["n1", "n2", "n3"]


def test_each_node_is_reached_by_name_and_has_an_address_of_its_own(cluster: DevCluster) -> None:
    for number, node in enumerate(["n1", "n2", "n3"], start=1):
        said = cluster.run(["srun", f"--nodelist={node}", "sh", "-c", "echo $SLURMD_NODENAME; getent hosts " + node])
        assert said.stdout.split() == [node, f"127.0.1.{number}", node]
        assert f" NodeAddr=127.0.1.{number} " in cluster.run(["scontrol", "-o", "show", "node", node]).stdout


def test_two_jobs_on_a_node_get_different_gpus(cluster: DevCluster, tmp_path: Path) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES; sleep 1000"
    jobs = [submit(cluster, script, "--gres=gpu:fake:1", "--nodelist=n2", folder=tmp_path) for _ in range(2)]
    files = [tmp_path / f"{job}.txt" for job in jobs]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    assert [file.read_text() for file in files] == ["0\n", "1\n"]
    waiting = submit(cluster, script, "--gres=gpu:1", "--nodelist=n2", folder=tmp_path)
    assert state(cluster, waiting) == "PENDING"


def test_a_job_of_high_preempts_one_of_main_which_is_signalled_and_requeued(
    cluster: DevCluster, tmp_path: Path
) -> None:
    script = (
        "echo start $SLURM_RESTART_COUNT; trap 'echo told; scontrol requeue $SLURM_JOB_ID; exit' USR2; "
        "sleep 1000 & wait; sleep 1000"
    )
    job = submit(
        cluster, script, "--nodes=3", "--exclusive", "--signal=B:USR2@60", "--open-mode=append", folder=tmp_path
    )
    output = tmp_path / f"{job}.txt"
    wait_until(lambda: output.exists() and "start" in output.read_text())
    cluster.run(["srun", "--partition=high", "true"])
    assert "told" in output.read_text()
    wait_until(lambda: "start 1" in output.read_text())


def test_a_job_that_takes_more_memory_than_it_asked_for_is_killed(cluster: DevCluster) -> None:
    greedy = "held = b'x' * (400 << 20); import time; time.sleep(1000)"
    answer = cluster.run(["srun", "--mem=100", "python3", "-c", greedy], check=False)
    assert answer.returncode
    assert "Exceeded job memory limit" in answer.stderr


def test_another_user_submits_owns_what_the_job_writes_and_is_accounted(cluster: DevCluster, open_folder: Path) -> None:
    job = submit(cluster, "id --user --name; exit 3", user="nobody", folder=open_folder)
    query = ["sacct", "--allocations", "--noheader", "--parsable2", f"--jobs={job}", "--format=State,ExitCode,User"]
    wait_until(lambda: cluster.run(query).stdout.strip() == "FAILED|3:0|nobody")
    output = open_folder / f"{job}.txt"
    assert output.read_text() == "nobody\n"
    assert output.owner() == "nobody"


def test_jobs_survive_a_controller_that_is_killed_and_started_again(cluster: DevCluster, tmp_path: Path) -> None:
    job = submit(cluster, "sleep 1000", folder=tmp_path)
    wait_until(lambda: state(cluster, job) == "RUNNING")
    # Slurm writes its jobs down a few seconds after a change; what it has not written dies with it.
    written = cluster.folder / "controller/job_state"
    before = written.stat().st_mtime_ns if written.exists() else 0
    cluster.run(["scontrol", "update", f"jobid={job}", "comment=changed"])
    wait_until(lambda: written.exists() and written.stat().st_mtime_ns != before)
    cluster.kill("slurmctld")
    assert "slurmctld" not in cluster.daemons()
    cluster.start("slurmctld")
    assert state(cluster, job) == "RUNNING"


@pytest.mark.parametrize("name", ["munged", "mariadbd", "slurmdbd", "slurmd.n3"])
def test_a_daemon_that_is_killed_and_started_again_works_as_before(cluster: DevCluster, name: str) -> None:
    cluster.kill(name)
    assert name not in cluster.daemons()
    cluster.start(name)
    assert name in cluster.daemons()
    cluster.run(["srun", "--nodes=3", "true"])
    cluster.run(["sacct"])


def test_a_daemon_that_is_stopped_is_still_there_and_goes_on(cluster: DevCluster) -> None:
    cluster.kill("slurmd.n1", SIGSTOP)
    assert "slurmd.n1" in cluster.daemons()
    cluster.kill("slurmd.n1", SIGCONT)
    cluster.run(["srun", "--nodelist=n1", "true"])


def test_daemons_have_the_numbers_that_processes_inside_know_them_by(cluster: DevCluster) -> None:
    for name, pid in cluster.daemons().items():
        assert cluster.run(["cat", f"/proc/{pid}/comm"]).stdout.strip() == name.partition(".")[0]


def test_wrong_names_of_daemons_and_users_are_explained(cluster: DevCluster) -> None:
    with pytest.raises(DaemonError, match=r"no daemon slurmd\.n9 in this cluster; it has munged, .*slurmd\.n3"):
        cluster.kill("slurmd.n9")
    with pytest.raises(DaemonError, match="slurmctld runs in the development cluster already"):
        cluster.start("slurmctld")
    with pytest.raises(DevClusterError, match="there is no user nonesuch on this machine"):
        cluster.run(["true"], user="nonesuch")


def test_a_command_that_fails_is_quoted_with_what_it_said(cluster: DevCluster) -> None:
    with pytest.raises(CommandFailedError, match=r"`sbatch --partition=none .* ended with 1 .*invalid partition"):
        cluster.run(["sbatch", "--partition=none", "--wrap=true"])


def test_a_command_keeps_folder_environment_and_input(cluster: DevCluster, tmp_path: Path) -> None:
    answer = cluster.run(["sh", "-c", "pwd; echo $WHAT; cat"], cwd=tmp_path, environment={"WHAT": "this"}, text="input")
    assert answer.stdout == f"{tmp_path}\nthis\ninput"
