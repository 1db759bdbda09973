"""Environment of a step that runs Ray, and parsing of its output."""

import subprocess
from pathlib import Path

import pytest

from slurm.ray.step import RayStep, step_environment


def _step(tmp_path: Path, said: str) -> RayStep:
    """A step that said something and ended."""
    step = RayStep("n2", ["true"], 2, 0, tmp_path / "ray-n2.log")
    (tmp_path / "ray-n2.log").write_text(said)
    step._process = subprocess.Popen(["true"])
    step._process.wait()
    return step


def test_srun_gets_the_job_but_none_of_its_options_from_the_environment() -> None:
    given = {
        **{
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_CONF": "/etc/slurm.conf",
            "SLURM_ARRAY_TASK_ID": "3",
        },
        **{"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_MEM_PER_CPU": "100", "SLURM_GPUS_PER_TASK": "1"},
        **{
            "SLURM_EXPORT_ENV": "NONE",
            "SLURM_CPU_BIND": "quiet",
            "SLURM_EXCLUSIVE": "1",
            "SRUN_DEBUG": "3",
            "HOME": "/",
        },
    }
    kept = {"SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_CONF", "SLURM_ARRAY_TASK_ID", "HOME"}
    assert step_environment(given).keys() == kept


def test_it_is_known_whether_ray_gave_up_or_what_looks_after_it(tmp_path: Path) -> None:
    gave_up = "Exception: The current node timed out\n\nntksweep ray node: ray ended by itself, with status 1\n"
    assert _step(tmp_path, gave_up).ray_gave_up()
    assert not _step(tmp_path, "the job asked for 2 GPUs on this node and has 1 there\n").ray_gave_up()


def test_port_and_readiness_are_read_from_what_this_step_said(tmp_path: Path) -> None:
    log = tmp_path / "ray-n2.log"
    log.write_text("ntksweep ray node: step=3 port=999\nntksweep ray node: ready\n")  # by the step before it
    step = RayStep("n2", ["true"], 2, 0, log)
    assert (step.port, step.is_ready()) == (None, False)
    with log.open("a") as more:
        more.write("srun: something\nntksweep ray node: step=4 port=12345\nnot ntksweep ray node: ready\n")
    assert (step.port, step.is_ready()) == (12345, False)
    with log.open("a") as more:
        more.write("ntksweep ray node: ready\n")
    assert step.is_ready()


@pytest.mark.parametrize(
    "said",
    [
        "slurmstepd: error: Step 16.0 exceeded memory limit (3241356 > 1536000), being killed",
        "slurmstepd: error: StepId=16.0 exceeded memory limit (324 > 153), being killed",
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0. Some of your processes may have been killed",
        "srun: error: n2: task 0: Out Of Memory",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.",
        "slurmstepd-n2: error: Step 16.0 exceeded memory limit (3241356 > 1536000), being killed",
    ],
)
def test_a_kill_for_memory_is_recognized(tmp_path: Path, said: str) -> None:
    assert _step(tmp_path, f"ntksweep ray node: ready\n{said}\n").ran_out_of_memory()


def test_what_ray_and_workers_write_about_memory_is_no_evidence(tmp_path: Path) -> None:
    said = "Worker exits. Common causes include: (1) the process was killed by the OOM killer\nCUDA out of memory\n"
    assert not _step(tmp_path, said).ran_out_of_memory()


@pytest.mark.parametrize(
    ("said", "gone"),
    [
        ("ntksweep ray node: ended\n", True),
        ("srun: error: n2: task 0: Killed\n", True),
        ("srun: error: Node failure on n2\n", False),
        ("srun: error: n22: task 0: Killed\n", False),
        ("", False),
    ],
)
def test_a_step_is_gone_only_if_its_task_was_seen_to_end(tmp_path: Path, said: str, gone: bool) -> None:
    step = _step(tmp_path, "ntksweep ray node: ready\n" + said)
    assert step.is_gone() == gone
    assert not step.ran_out_of_memory()


def test_a_step_that_runs_is_not_gone_whatever_its_log_says(tmp_path: Path) -> None:
    step = _step(tmp_path, "ntksweep ray node: ended\n")
    step._process = subprocess.Popen(["sleep", "100"])
    assert not step.is_gone()
    step._process.kill()
    step._process.wait()
