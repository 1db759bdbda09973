"""From a profile to the script that Slurm gets."""

import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slurm.profile.profile import Profile
from slurm.submit.script import CONFIGURATION_FAULT, FAULT_MARK, python_command, setup_lines
from slurm.submit.submission import Request, SubmissionError, script, submit_allocations
from tests.slurm.programs import Programs

RESULTS = Path("/shared/ntk/results")


def profile_of(**changes: Any) -> Profile:
    return Profile.model_validate({"memory": "64GiB", "time_limit": "4h"} | changes)


def request_of(logs: Path = Path("/shared/logs"), results: Path = RESULTS, **changes: Any) -> Request:
    return Request(profile_of(**changes), "ntksweep-tiny-1234", results, logs, ("-m", "driver"), ("-m", "cleanup"))


def options(text: str) -> dict[str, str]:
    """Return what a script asks sbatch for, which takes quotes off as a shell does."""
    lines = [" ".join(shlex.split(line[len("#SBATCH --") :])) for line in text.splitlines() if "#SBATCH" in line]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_the_script_says_all_that_the_smallest_profile_says_and_no_more() -> None:
    python = sys.executable
    assert script(request_of(), 1) == (
        f"""#!/bin/bash

# Parameters
#SBATCH --chdir=/shared/ntk
#SBATCH --cpus-per-task=1
#SBATCH --error=/shared/logs/%j_0_log.err
#SBATCH --job-name=ntksweep-tiny-1234
#SBATCH --mem=65536M
#SBATCH --no-kill
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/shared/logs/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=B:USR2@120
#SBATCH --time=240

# setup
umask 077
command -v {python} >/dev/null || {{ echo 'ntksweep: there is no {python} on '"$SLURMD_NODENAME" >&2; exit 78; }}
test -r /shared/ntk/results/spec.yaml || {{ echo 'ntksweep: the results folder /shared/ntk/results cannot be read on """
        f"""'"$SLURMD_NODENAME" >&2; exit 78; }}

# command
export SUBMITIT_EXECUTOR=slurm
exec {python} -u -m submitit.core._submit /shared/logs
"""
    )


def test_every_key_of_a_profile_reaches_the_script() -> None:
    text = script(
        request_of(
            partition="gpu", account="nlp", qos="long", nodes=2, tasks_per_node=4, cpus_per_task=8, gpus_per_task=2,
            gpu_type="a100", signal_seconds=300, constraint="a100&nvlink", exclude="node[07-09],node42",
            sbatch={"licenses": "matlab:1", "exclusive": True, "nice": 10},
        ),
        3,
    )  # fmt: skip
    found = options(text)
    assert found.items() >= {
        "partition": "gpu", "account": "nlp", "qos": "long", "nodes": "2", "ntasks-per-node": "4", "cpus-per-task": "8",
        "gres": "gpu:a100:8", "signal": "B:USR2@300", "constraint": "a100&nvlink", "exclude": "node[07-09],node42",
        "licenses": "matlab:1", "exclusive": "", "nice": "10", "array": "0-2%3", "mem": "65536M", "time": "240",
        "output": "/shared/logs/%A_%a_0_log.out", "error": "/shared/logs/%A_%a_0_log.err",
    }.items()  # fmt: skip
    assert options(script(request_of(gpus_per_task=1), 1))["gres"] == "gpu:1"
    assert options(script(request_of(tasks_per_node=3, gpus_per_task=0.5), 1))["gres"] == "gpu:2"
    assert "gres" not in options(script(request_of(), 1))


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, (sys.executable,)),
        ({"python": "/opt/bin/python3"}, ("/opt/bin/python3",)),
        ({"virtual_environment": "/envs/ntk"}, ("/envs/ntk/bin/python",)),
        ({"container": "apptainer exec --nv 'my image.sif'"}, ("apptainer", "exec", "--nv", "my image.sif", "python3")),
        ({"container": "podman run ntk", "python": "/opt/python"}, ("podman", "run", "ntk", "/opt/python")),
    ],
)
def test_python_is_started_as_the_profile_says(changes: dict[str, Any], command: tuple[str, ...]) -> None:
    assert python_command(profile_of(**changes)) == command
    last = script(request_of(**changes), 1).splitlines()[-1]
    assert last.startswith("exec ")
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {last}"], capture_output=True, text=True, check=True).stdout
    assert words.splitlines()[1:] == [*command, "-u", "-m", "submitit.core._submit", "/shared/logs"]


def run_setup(folder: Path, *, path: str = "/usr/bin:/bin", **changes: Any) -> "subprocess.CompletedProcess[str]":
    """Run what a script does before it starts Python, on a pretended node."""
    lines = "\n".join([*setup_lines(profile_of(**changes), folder), "umask; env"])
    environment = {"PATH": path, "SLURMD_NODENAME": "n7"}
    return subprocess.run(
        ["bash", "-c", lines], capture_output=True, text=True, check=False, env=environment, cwd=folder
    )


def test_the_lines_before_python_load_modules_and_then_run_what_the_profile_adds(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").touch()
    module = 'module() { test "$*" != "load cuda/99" && export LOADED="$LOADED $2"; }; export -f module'
    text = "\n".join(
        [module, *setup_lines(profile_of(modules=["a/1", "b/2"], setup=["export AFTER=$LOADED"]), tmp_path), "env"]
    )
    ran = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    assert "AFTER= a/1 b/2" in ran.stdout.splitlines()

    failing = "\n".join([module, *setup_lines(profile_of(modules=["cuda/99"]), tmp_path), "env"])
    ran = subprocess.run(
        ["bash", "-c", failing],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/bin", "SLURMD_NODENAME": "n7"},
    )
    assert ran.returncode == CONFIGURATION_FAULT
    assert ran.stderr == f"{FAULT_MARK}the module cuda/99 cannot be loaded on n7\n"
    assert ran.stdout == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modules": ["cuda/12"]}, "the module cuda/12 cannot be loaded on n7"),
        ({"python": "/nowhere/python"}, "there is no /nowhere/python on n7"),
        ({"virtual_environment": "/no where"}, "there is no '/no where/bin/python' on n7"),
        ({"container": "nocontainer run"}, "there is no nocontainer on n7"),
    ],
)
def test_a_node_that_lacks_something_says_so_and_where(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").touch()
    ran = run_setup(tmp_path, **changes)
    assert ran.returncode == CONFIGURATION_FAULT
    assert ran.stderr.splitlines()[-1] == FAULT_MARK + said


def test_a_node_that_does_not_see_the_results_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()
    ran = run_setup(folder)
    assert ran.returncode == CONFIGURATION_FAULT
    assert ran.stderr == f"{FAULT_MARK}the results folder {folder} cannot be read on n7\n"


@pytest.mark.parametrize(("results", "umask"), [("private", "0077"), ("group", "0027"), ("everyone", "0022")])
def test_a_job_writes_for_those_who_may_read_the_results(results: str, umask: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").touch()
    assert run_setup(tmp_path, results=results).stdout.splitlines()[0] == umask


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """An sbatch that keeps the script and gives number 4711, or refuses if there is a file `refuse`."""
    programs = Programs(tmp_path)
    programs.add(
        "sbatch",
        f"test -e {tmp_path}/refuse && {{ echo 'sbatch: error: Invalid qos' >&2; exit 1; }}\n"
        f'cat "$1" > {tmp_path}/script\necho Submitted batch job 4711',
    )
    monkeypatch.setenv("PATH", f"{programs.folder}:/usr/bin:/bin")
    return programs


@pytest.mark.parametrize("count", [1, 3])
def test_slurm_gets_exactly_the_script_that_is_shown(count: int, sbatch: Programs, tmp_path: Path) -> None:
    request = request_of(tmp_path / "logs", partition="main", requeues=7, container="apptainer exec x.sif")
    assert submit_allocations(request, count) == "4711"
    assert (tmp_path / "script").read_text().strip() == script(request, count).strip()
    assert len(sbatch.calls()) == 1


def test_the_job_gets_the_allocation_that_the_profile_describes(sbatch: Programs, tmp_path: Path) -> None:
    request = request_of(
        tmp_path / "logs", tasks_per_node=2, cpus_per_task=3, gpus_per_task=1, container="apptainer exec x.sif",
        local_scratch="/local", object_store="100MB", requeues=7, signal_seconds=200,
    )  # fmt: skip
    submit_allocations(request, 1)
    (path,) = (tmp_path / "logs").glob("4711_submitted.pkl")
    delayed = pickle.loads(path.read_bytes())
    allocation = delayed.function
    assert delayed._timeout_countdown == 7
    assert allocation.driver == ("apptainer", "exec", "x.sif", "python3", "-m", "driver")
    assert allocation.cleanup == ("apptainer", "exec", "x.sif", "python3", "-m", "cleanup")
    assert (allocation.logs, allocation.signal_seconds) == (str(tmp_path / "logs"), 200)
    ray = allocation.ray
    assert (ray.workers_per_node, ray.cpus_per_node, ray.gpus_per_node) == (2, 6, 2)
    assert (ray.memory_bytes, ray.object_store_bytes) == (64 * 2**30, 100 * 10**6)
    assert (ray.local_scratch, ray.dashboard, ray.python) == (Path("/local"), False, allocation.driver[:4])


def test_what_sbatch_says_is_passed_on(sbatch: Programs, tmp_path: Path) -> None:
    (tmp_path / "refuse").touch()
    with pytest.raises(SubmissionError, match=r"sbatch refused the job: (?s:.*)Invalid qos"):
        submit_allocations(request_of(tmp_path / "logs"), 2)
