"""Development clusters do not meet each other, and leave nothing behind however they end."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from slurm.devcluster import ClusterSettings, DevCluster
from slurm.devcluster.errors import AlreadyUpError
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.xdist_group("cluster-b")

SMALL = ClusterSettings(nodes=1, gpus=0, accounting=False)
CLI = [sys.executable, "-m", "orchestrator", "devcluster"]


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the processes in the namespaces of the cluster in `folder`; its first process names that folder."""
    named = [process for process in psutil.process_iter() if str(folder) in " ".join(_words(process))]
    namespaces = {_namespace(process.pid) for process in named} - {None, _namespace("self")}
    return [process for process in psutil.process_iter() if _namespace(process.pid) in namespaces]


def assert_nothing_left(folder: Path, processes: list[psutil.Process]) -> None:
    assert not [process for process in processes if process.is_running()]
    assert not [process for process in psutil.process_iter() if str(folder) in " ".join(_words(process))]
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    shutil.rmtree(folder)
    assert not folder.exists()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _namespace(pid: int | str) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None


def test_down_ends_jobs_and_daemons_and_leaves_no_mounts(cluster: DevCluster, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    other = DevCluster.up(folder, SMALL, tied=True)
    other.run(["sbatch", "--output=/dev/null", "--wrap=trap '' TERM; sleep 1000 & wait"])
    names = {"slurmctld", "slurmd", "munged", "slurmstepd", "sleep"}
    wait_until(lambda: names <= {_name(process) for process in processes_of(folder)})
    processes = processes_of(folder)
    other.down()
    assert DevCluster.find(folder) is None
    other.down()
    assert_nothing_left(folder, processes)


def test_clusters_in_different_folders_do_not_meet(cluster: DevCluster, tmp_path: Path) -> None:
    other = DevCluster.up(tmp_path / "other", SMALL, tied=True)
    try:
        for each in (cluster, other):
            each.run(["sbatch", "--output=/dev/null", "--wrap=sleep 1000", f"--job-name=of-{id(each)}"])
        for each in (cluster, other):
            assert each.run(["squeue", "--noheader", "--format=%j"]).stdout.split() == [f"of-{id(each)}"]
        assert set(other.run(["sinfo", "--noheader", "--Node", "--format=%N"]).stdout.split()) == {"n1"}
    finally:
        other.down()
    cluster.run(["srun", "--nodes=3", "true"])


def test_without_accounting_jobs_run_and_sacct_says_that_there_is_none(cluster: DevCluster, tmp_path: Path) -> None:
    other = DevCluster.up(tmp_path / "other", SMALL, tied=True)
    try:
        # Every node answers as soon as the cluster is up.
        assert other.run(["sinfo", "--noheader", "--Node", "--format=%T"]).stdout.split() == ["idle"] * 3
        assert set(other.daemons()) == {"munged", "slurmctld", "slurmd.n1"}
        assert other.run(["srun", "sh", "-c", "echo ran"]).stdout == "ran\n"
        answer = other.run(["sacct"], check=False)
        assert answer.returncode
        assert "accounting storage is disabled" in answer.stderr
    finally:
        other.down()


def test_a_tied_cluster_ends_with_a_process_that_is_killed(cluster: DevCluster, tmp_path: Path) -> None:
    folder = tmp_path / "tied"
    program = (
        "import sys, time; from pathlib import Path; from slurm.devcluster import *; "
        "DevCluster.up(Path(sys.argv[1]), ClusterSettings(nodes=1, gpus=0, accounting=False), tied=True); "
        "print('up', flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        processes = processes_of(folder)
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(process.is_running() for process in processes))
    assert_nothing_left(folder, processes)


def test_a_command_dies_with_what_waits_for_it(cluster: DevCluster) -> None:
    with subprocess.Popen(cluster.command(["sh", "-c", "echo $$; exec sleep 1000"]), stdout=subprocess.PIPE) as waiting:
        assert waiting.stdout is not None
        pid = waiting.stdout.readline().decode().strip()
        assert cluster.run(["cat", f"/proc/{pid}/comm"]).stdout == "sleep\n"
        waiting.kill()
    wait_until(lambda: cluster.run(["test", "-d", f"/proc/{pid}"], check=False).returncode != 0)


def test_the_commands_start_use_and_end_a_cluster(cluster: DevCluster, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    option = ["--folder", str(folder)]
    started = _ntksweep("up", *option, "--nodes=2", "--gpus=0", "--no-accounting")
    processes = processes_of(folder)
    try:
        assert f"ntksweep devcluster run --folder {folder} bash" in started.stdout
        assert "nodes n1 to n2, each with 4 processors, 4000 MB and 0 pretended GPUs" in started.stdout
        twice = _ntksweep("up", *option, status=2)
        assert f"a development cluster is up in {folder}" in twice.stderr
        used = _ntksweep("run", *option, "sh", "-c", "pwd; srun --nodes=2 echo ran; exit 7", status=7)
        assert used.stdout == f"{Path.cwd()}\nran\nran\n"
    finally:
        _ntksweep("down", *option)
    assert "no development cluster is up" in _ntksweep("down", *option, status=2).stderr
    assert_nothing_left(folder, processes)


def test_run_starts_a_cluster_for_its_command_alone_where_none_is_up(cluster: DevCluster, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    options = ["--folder", str(folder), "--nodes=1", "--gpus=0", "--no-accounting"]
    answer = _ntksweep("run", *options, "sh", "-c", "srun echo ran; exit 7", status=7)
    assert answer.stdout == "ran\n"
    assert not (folder / "cluster.json").exists()
    assert_nothing_left(folder, [])


@pytest.mark.parametrize("up", [True, False], ids=["in a cluster that is up", "in one of its own"])
def test_ctrl_c_is_left_to_the_command_inside(cluster: DevCluster, tmp_path: Path, up: bool) -> None:
    options = ["--nodes=1", "--gpus=0", "--no-accounting"]
    folder = cluster.folder if up else tmp_path / "cluster"
    script = "trap 'echo caught; exit 5' INT; echo ready; while true; do sleep 0.1; done"
    command = [*CLI, "run", "--folder", str(folder), *([] if up else options), "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        os.killpg(running.pid, signal.SIGINT)
        assert running.stdout.read() == "caught\n"
    assert running.returncode == 5


def test_a_machine_that_allows_no_namespaces_is_told_what_is_needed(cluster: DevCluster, tmp_path: Path) -> None:
    without = ["setpriv", "--bounding-set=-sys_admin", *CLI, "up", "--folder", str(tmp_path / "cluster")]
    answer = subprocess.run(without, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 2
    assert "no namespaces can be made on this machine: unshare" in answer.stderr
    assert "--privileged" in answer.stderr


def test_a_folder_is_used_again_but_by_one_cluster_at_a_time(cluster: DevCluster) -> None:
    with pytest.raises(AlreadyUpError, match=r"is up in .*devcluster down`"):
        DevCluster.up(cluster.folder)
    found = DevCluster.find(cluster.folder)
    assert found is not None
    assert found.settings == cluster.settings
    assert found.daemons() == cluster.daemons()


def _ntksweep(*arguments: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
    answer = subprocess.run([*CLI, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == status, answer.stderr + answer.stdout
    return answer
