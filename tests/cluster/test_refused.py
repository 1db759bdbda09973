"""Requests that cannot work are refused in plain words before anything is submitted or written."""

from typing import Any

import pytest

from tests.cluster.conftest import NewSubmitted
from tests.cluster.login import Login
from tests.cluster.submitted import Submitted
from tests.faults.driving import Answer

pytestmark = pytest.mark.xdist_group("cluster-c")

REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"partition": "mian"}, {}, "partition: there is no partition `mian`; did you mean `main`?"),
    ({"account": "nlp"}, {}, "account: root has no account `nlp`; there are: root"),
    ({"gpus_per_task": 1, "gpu_type": "a100"}, {}, "gpu_type: partition main has no GPUs of type `a100`"),
    ({"nodes": 4}, {}, "nodes: partition main has 3 nodes, the profile asks for 4"),
    ({"partition": "small", "time_limit": "1h"}, {}, "time_limit: 1h is more than the 10m that partition small"),
    ({"slurm": "<20"}, {}, "slurm: this cluster runs Slurm 22.05.8, the profile was written for <20"),
    ({"partiton": "main"}, {}, "unknown key `partiton`"),
    ({"memory": 64}, {}, "64 bytes are too few to start Python and Ray: write the unit, as in 64GB"),
    ({"memory": "180MB"}, {}, "1 worker with 100.0 MB for Jacobians and kernels and"),
    ({"exclude": "n[1-3]"}, {}, "exclude: `n[1-3]` leaves 0 of 3 nodes of partition main, the profile asks for 1"),
    ({"memory": "lots"}, {}, "memory: `lots` is not a size; write the number and the unit, as in 64GB"),
    ({"sbatch": {"licenses": "matlab:1"}}, {}, "Slurm would refuse the job: "),
    ({"shared_scratch": ["/home"]}, {}, "is under none of the profile's shared_scratch (/home)"),
    ({}, {"compute.threads": 2}, "compute.threads is 2 and the profile gives a worker 1 CPUs"),
]
"""Changes of the profile, changes of the spec, and what is said of them."""


@pytest.mark.parametrize(("profile", "spec", "said"), REFUSED, ids=[said[:30] for _, _, said in REFUSED])
def test_wrong_profiles_are_refused(
    profile: dict[str, Any], spec: dict[str, Any], said: str, login: Login, new_sweep: NewSubmitted
) -> None:
    sweep = new_sweep(spec)
    assert_refused(login, sweep, login.submit(sweep, **profile), said)


def test_a_results_folder_that_only_this_machine_has_is_refused(login: Login, new_sweep: NewSubmitted) -> None:
    sweep = new_sweep()
    answer = login.submit(sweep, shared_scratch=[], local_scratch=str(sweep.folder))
    assert_refused(login, sweep, answer, f"results: {sweep.results} is under {sweep.folder}, which every node has")


def test_a_machine_without_slurm_and_a_profile_that_is_not_there_are_named(
    login: Login, new_sweep: NewSubmitted
) -> None:
    sweep = new_sweep()
    missing = login.run(sweep, "submit", sweep.spec, "--profile", sweep.folder / "no.yaml", "--yes")
    assert_refused(login, sweep, missing, f"{sweep.folder}/no.yaml")
    login.path = "/nonexistent"
    said = "there is no Slurm on this machine: `scontrol` was not found; submit from a login node"
    assert_refused(login, sweep, login.submit(sweep), said)


def test_a_dry_run_and_a_user_who_says_no_leave_nothing(login: Login, new_sweep: NewSubmitted) -> None:
    sweep = new_sweep()
    command = ("submit", sweep.spec, "--profile", sweep.profile(sbatch={"hold": True}), "--allocations=3")
    dry = login.run(sweep, *command, "--dry-run")
    assert dry.status == 0
    assert "3 allocations of 1 node for 10 min: at most 0.5 node hours" in dry.output
    assert "on disk" in dry.output
    assert_nothing_submitted(login, sweep)
    nobody = login.run(sweep, *command)
    assert_refused(login, sweep, nobody, "there is no terminal to ask whether to submit this; give --yes, or --dry-run")
    no = login.run(sweep, *command, says="n\n")
    assert no.status == 1
    assert "Submit 3 allocations? [y/N]" in no.output
    assert_nothing_submitted(login, sweep)

    yes = login.run(sweep, *command, says="y\n")
    assert yes.status == 0, yes.output
    array = sweep.jobs()[0].partition("_")[0]
    assert sorted(sweep.jobs()) == [f"{array}_{task}" for task in range(3)]
    assert f"submitted job {array}: 3 allocations" in yes.output
    # What was shown is what Slurm got, but for the name of the submission.
    got = sweep.cluster.run(["scontrol", "write", "batch_script", array, "-"]).stdout
    (submission,) = (path.stem for path in (sweep.results / "submissions").iterdir())
    shown = script_in(dry.output)
    before = next(line for line in shown.splitlines() if "--job-name" in line).rpartition("-")[2]
    assert shown.replace(before, submission) == got.strip()


def test_a_job_that_sbatch_does_not_take_after_all_is_reported_and_sent_again(
    login: Login, new_sweep: NewSubmitted
) -> None:
    sweep = new_sweep()
    says = "echo 'sbatch: error: Batch job submission failed: Job violates accounting policy' >&2; exit 1"
    login.programs.add("sbatch", f'case "$*" in *--test-only*) exec {login.real("sbatch")};; esac\n{says}')
    answer = login.submit(sweep)
    assert answer.status == 2
    assert "error: sbatch refused the job" in answer.output
    assert "Job violates accounting policy" in answer.output
    assert "Traceback" not in answer.output
    assert login.status(sweep)["allocations"] == []
    login.programs.add("sbatch", f"exec {login.real('sbatch')}")
    assert login.submit(sweep, sbatch={"hold": True}).status == 0
    assert len(sweep.jobs()) == 1


def script_in(output: str) -> str:
    """Return the script that a dry run shows."""
    return output[output.index("#!/bin/bash") : output.index("this was a dry run")].strip()


def assert_refused(login: Login, sweep: Submitted, answer: Answer, said: str) -> None:
    assert answer.status == 2, answer.output
    assert f"{said}" in answer.output
    assert "error:" in answer.output
    assert "Traceback" not in answer.output
    assert_nothing_submitted(login, sweep)


def assert_nothing_submitted(login: Login, sweep: Submitted) -> None:
    sent = [call for call in login.programs.calls() if call.startswith("sbatch") and "--test-only" not in call]
    assert sent == []
    assert sweep.jobs() == []
    assert not sweep.results.exists()
