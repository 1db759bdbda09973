"""Submissions that meet, that die on the way, and that go on where others ended."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.store.claims import ClaimBook
from slurm.devcluster import DevCluster
from tests.cluster.conftest import NewSubmitted
from tests.cluster.login import Login
from tests.cluster.submitted import Submitted
from tests.cluster.waiting import wait_until
from tests.faults.tables import assert_same_tables

pytestmark = pytest.mark.xdist_group("cluster-c")

HELD = {"hold": True}
"""Options of sbatch for a job that does not start by itself."""


def records(sweep: Submitted) -> list[list[str]]:
    """Return the jobs of each submission that a results folder has a record of."""
    return [json.loads(path.read_text())["jobs"] for path in (sweep.results / "submissions").glob("*.json")]


def living(login: Login, sweep: Submitted) -> list[str]:
    """Return the jobs that `status` says are queued or running."""
    return [each["job"] for each in login.status(sweep)["allocations"] if each["alive"]]


def test_of_two_submissions_at_the_same_moment_one_is_sent(
    login: Login,
    cluster: DevCluster,
    new_sweep: NewSubmitted,
    tmp_path: Path,
    expected: dict[str, pa.Table],
    nothing_left: Callable[[], None],
) -> None:
    sweep = new_sweep()
    profile = sweep.profile(sbatch=HELD)
    sending, seen = tmp_path / "sending", tmp_path / "seen"
    login.programs.add(
        "sbatch",
        f'case "$*" in *--test-only*) ;; *) touch {sending}; until test -e {seen}; do sleep 0.1; done;; esac\n'
        f"exec {login.real('sbatch')}",
    )
    command = ("submit", sweep.spec, "--profile", profile, "--yes")
    two = [login.start(sweep, *command), login.start(sweep, *command)]
    try:
        wait_until(lambda: sending.exists() and not all(each.running for each in two))
    finally:
        seen.touch()
    refused, sent = sorted((each.wait() for each in two), key=lambda answer: -answer.status)
    assert (refused.status, sent.status) == (2, 0)
    assert "another process is submitting allocations for this sweep at this moment" in refused.output
    (job,) = sweep.jobs()
    assert records(sweep) == [[job]]

    late = login.run(sweep, *command)
    assert late.status == 2
    assert f"1 allocation of this sweep may still work on it: {job} (" in late.output
    assert sweep.jobs() == [job]
    cluster.run(["scontrol", "release", job])
    login.must(sweep, "wait", sweep.results)
    sweep.ended_as_if_nothing_had_been(expected)
    nothing_left()


def test_a_submission_that_was_killed_before_it_wrote_anything_is_in_nobodys_way(
    login: Login, new_sweep: NewSubmitted
) -> None:
    sweep = new_sweep()
    claims = sweep.results / "claims"
    claims.mkdir(parents=True)
    dead = ClaimBook(claims).process | {"process_started": -1, "taken": 0.0}
    (claims / "submission.1").write_text(json.dumps(dead))
    sent = login.submit(sweep, sbatch=HELD)
    assert sent.status == 0, sent.output
    assert list(claims.iterdir()) == []


def test_a_submission_that_is_killed_on_the_way_is_known_and_resumed(
    login: Login,
    new_sweep: NewSubmitted,
    expected: dict[str, pa.Table],
    nothing_left: Callable[[], None],
) -> None:
    sweep = new_sweep()
    # Arrays of one: two allocations are two jobs.
    login.programs.add("scontrol", f"{login.real('scontrol')} | sed 's/^MaxArraySize .*/MaxArraySize = 1/'")
    # Killed as soon as Slurm has the first of them, before its number is recorded.
    not_a_test = 'case "$*" in *--test-only*) exec'
    login.programs.add("sbatch", f"{not_a_test} {login.real('sbatch')};; esac\n{login.real('sbatch')}; kill -9 $PPID")
    killed = login.submit(sweep, "--allocations=2", sbatch=HELD)
    assert killed.status == -9
    (unrecorded,) = sweep.jobs()
    assert records(sweep) == [[]]
    assert living(login, sweep) == [unrecorded]
    for again in (login.submit(sweep), login.run(sweep, "resume", sweep.results, "--yes", "--trust-profile")):
        assert again.status == 2
        assert f"1 allocation of this sweep may still work on it: {unrecorded} (" in again.output
    assert login.must(sweep, "cancel", sweep.results).splitlines()[0] == f"cancelled 1 allocation: {unrecorded}"
    assert sweep.jobs() == []

    # Killed between two jobs: the first is recorded, the second was never sent.
    count = login.programs.folder / "sent"
    login.programs.add(
        "sbatch",
        f"{not_a_test} {login.real('sbatch')};; esac\n"
        f"test -e {count} && kill -9 $PPID && exit\ntouch {count}\nexec {login.real('sbatch')}",
    )
    profile = sweep.profile()
    resume = ("resume", sweep.results, "--profile", profile, "--allocations=2", "--yes")
    killed = login.run(sweep, *resume)
    assert killed.status == -9
    with sweep.held("solve"):
        (first,) = sweep.jobs()
        assert sorted(records(sweep)) == [[], [first]]
        refused = login.run(sweep, *resume)
        assert refused.status == 2
        assert f"{first} (" in refused.output
        assert sweep.jobs() == [first]
        sweep.wait_for_events(30)
        login.must(sweep, "cancel", sweep.results)
    ended = login.run(sweep, "wait", sweep.results)
    assert ended.status == 3
    assert "CANCELLED" in ended.output

    login.programs.add("sbatch", f"exec {login.real('sbatch')}")
    planned = login.must(sweep, "resume", sweep.results, "--dry-run")
    assert sweep.jobs() == []
    there = {line.split()[0]: int(line.split()[2]) for line in planned.splitlines()[2:6]}
    assert there["dataset"] > 0
    assert sum(there.values()) == sum(count["finished"] for count in login.status(sweep)["kinds"])
    said = login.must(sweep, "resume", sweep.results, "--allocations=2", "--yes", "--trust-profile")
    assert said.count("submitted job") == 2
    assert login.must(sweep, "wait", sweep.results)
    sweep.ended_as_if_nothing_had_been(expected)
    nothing_left()

    nothing_is_missing = "nothing is missing: results/tables holds every cell"
    login.path = "/nonexistent"  # to say so takes no Slurm
    assert login.must(sweep, "resume", sweep.results).strip() == nothing_is_missing
    shutil.rmtree(sweep.results / "tables")
    assert login.must(sweep, "resume", sweep.results).strip() == nothing_is_missing
    assert_same_tables(sweep.results, expected)
    assert login.submit(sweep).output.strip() == nothing_is_missing
    assert len(records(sweep)) == 3
