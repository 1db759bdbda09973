"""Status, wait, cancel and logs: from the results folder and one question to the scheduler."""

import json
import re
import stat
from pathlib import Path

import pytest

from slurm.devcluster import DevCluster
from tests.cluster.conftest import NewSubmitted
from tests.cluster.login import Login
from tests.cluster.submitted import Submitted
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.xdist_group("cluster-c")

HELD = {"hold": True}
"""Options of sbatch for a job that does not start by itself."""


def test_a_status_asks_each_program_of_slurm_once_for_all_jobs(
    login: Login, cluster: DevCluster, new_sweep: NewSubmitted
) -> None:
    sweep = new_sweep()
    # Arrays of one, so that there are many jobs and not many tasks of one.
    login.programs.add("scontrol", f"{login.real('scontrol')} | sed 's/^MaxArraySize .*/MaxArraySize = 1/'")
    sent = login.submit(sweep, "--allocations=12", sbatch=HELD)
    assert sent.status == 0, sent.output
    jobs = re.findall(r"submitted job (\d+): 1 allocation\n", sent.output)
    assert sorted(jobs) == sorted(sweep.jobs())
    assert len(jobs) == 12

    def asked() -> tuple[dict[str, dict[str, object]], str, list[str]]:
        before = len(login.programs.calls())
        found = login.status(sweep)
        calls = [call.split()[0] for call in login.programs.calls()[before:]]
        return {each["job"]: each for each in found["allocations"]}, found["scheduler_fault"], calls

    wait_until(lambda: {each["state"] for each in asked()[0].values()} == {"PENDING"})
    found, fault, calls = asked()
    assert (sorted(found), fault, calls) == (sorted(jobs), "", ["sacct", "squeue"])
    assert {each["source"] for each in found.values()} == {"sacct"}
    shown = login.run(sweep, "status", sweep.results)
    assert shown.status == 3
    assert all(re.search(rf"^{job} +PENDING +- +- +is held", shown.output, re.MULTILINE) for job in jobs)

    cluster.kill("slurmdbd")
    found, fault, calls = asked()
    assert (sorted(found), fault, calls[-1], calls.count("squeue")) == (sorted(jobs), "", "squeue", 1)
    assert {(each["source"], each["state"], each["alive"]) for each in found.values()} == {("squeue", "PENDING", True)}

    cluster.kill("slurmctld")
    found, fault, calls = asked()
    assert found == {}
    assert "Unable to contact slurm controller" in fault
    assert "try again in a minute" in fault
    for name in ("slurmdbd", "slurmctld"):
        cluster.start(name)

    login.path = "/nonexistent"
    found, fault, calls = asked()
    assert (found, calls) == ({}, [])
    assert fault.startswith("there is no Slurm on this machine: `sacct` was not found; submit from a login node")
    shown = login.run(sweep, "status", sweep.results)
    assert shown.status == 3
    assert "the scheduler could not be asked: there is no Slurm on this machine" in shown.output
    assert "0 of 60 cells finished" in shown.output


def test_wait_gives_up_after_a_while_and_cancelled_allocations_are_no_success(
    login: Login, new_sweep: NewSubmitted
) -> None:
    sweep = new_sweep()
    before = login.run(sweep, "wait", sweep.results)
    assert before.status == 2
    assert "there are no results at" in before.output
    assert login.submit(sweep, "--allocations=2", sbatch=HELD).status == 0
    tasks = sorted(sweep.jobs())
    assert len(tasks) == 2

    def allocations() -> list[tuple[str, str]]:
        return [(each["job"], each["state"]) for each in login.status(sweep)["allocations"]]

    # The database hears of a job some seconds after the controller.
    wait_until(lambda: allocations() == [(task, "PENDING") for task in tasks])
    waited = login.run(sweep, "wait", sweep.results, "--timeout=1")
    assert waited.status == 3
    assert "allocations are still queued or running" in waited.output
    assert waited.output.count("PENDING") == 2

    logs = login.run(sweep, "logs", sweep.results)
    assert logs.status == 2
    assert f"there are no logs of jobs in {sweep.results}/logs/slurm; jobs that never began leave none" in logs.output
    unknown = login.run(sweep, "logs", sweep.results, "--cell", "0" * 16)
    assert unknown.status == 2
    assert f"the sweep has no cell `{'0' * 16}`" in unknown.output

    cancelled = json.loads(login.must(sweep, "cancel", sweep.results, "--json"))
    assert sorted(cancelled["cancelled"]) == tasks
    assert login.must(sweep, "cancel", sweep.results) == "cancelled 0 allocations\n"
    ended = login.run(sweep, "wait", sweep.results)
    assert ended.status == 3
    assert ended.output.count("CANCELLED") == 2
    assert "still queued or running" not in ended.output
    wait_until(lambda: sweep.jobs() == [])
    assert login.submit(sweep, sbatch=HELD).status == 0


@pytest.mark.parametrize(("shared", "mode"), [("private", 0o700), ("group", 0o750)])
def test_others_cannot_read_the_results_unless_the_profile_says_so(
    shared: str, mode: int, cluster: DevCluster, login: Login, open_folder: Path, tiny_model: Path
) -> None:
    sweep = Submitted(cluster, open_folder / "sweep", tiny_model)
    sweep.results.mkdir(mode=0o755)
    sent = login.submit(sweep, results=shared, sbatch=HELD)
    assert sent.status == 0, sent.output
    assert stat.S_IMODE(sweep.results.stat().st_mode) == mode
    for command in (["ls", sweep.results], ["cat", sweep.results / "spec.yaml"]):
        answer = cluster.run(command, user="nobody", cwd=Path("/"), check=False)
        assert answer.returncode != 0
        assert "Permission denied" in answer.stderr
    (record,) = (sweep.results / "submissions").iterdir()
    assert bool(record.stat().st_mode & stat.S_IRGRP) == (shared == "group")
