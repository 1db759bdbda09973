"""The allocations of a sweep, as far as its records and the scheduler know of them."""

from pathlib import Path

import pytest

from orchestrator.cluster.allocations import allocations_of
from orchestrator.cluster.records import Submission, forget_submission, read_submissions, write_submission
from orchestrator.sweep.folder import ResultsFolder
from slurm.query.job_state import State
from tests.slurm.programs import Programs


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    made = Programs(tmp_path)
    monkeypatch.setenv("PATH", str(made.folder))
    return made


def submitted(folder: Path, *, sizes: tuple[int, ...], jobs: tuple[str, ...]) -> ResultsFolder:
    results = ResultsFolder(folder / "results")
    write_submission(results, Submission("5ab1", "sweep", sizes, {}, accounting=True, jobs=jobs))
    return results


def test_of_an_array_that_the_scheduler_does_not_know_yet_every_allocation_is_counted(
    programs: Programs, tmp_path: Path
):
    programs.add("sacct", "echo '13|RUNNING|0:0|None|n1|5|Unknown|name'")
    found = allocations_of(submitted(tmp_path, sizes=(3, 1), jobs=("12", "13")))
    assert [(each.job, each.state.state) for each in found] == [
        ("13", State.RUNNING), ("12_0", State.UNKNOWN), ("12_1", State.UNKNOWN), ("12_2", State.UNKNOWN),
    ]  # fmt: skip
    assert len(programs.calls()) == 1


def test_a_cancelled_allocation_needs_no_further_words(programs: Programs, tmp_path: Path):
    programs.add("sacct", "echo '12|CANCELLED by 0|0:0|None|n1|5|2026-11-24T01:00:00|name'")
    results = submitted(tmp_path, sizes=(1,), jobs=("12",))
    log = results.logs / "slurm/5ab1/12_0_log.err"
    log.parent.mkdir(parents=True)
    log.write_text("some.Error: noise of the end\n")
    (allocation,) = allocations_of(results)
    assert (allocation.state.state, allocation.words) == (State.CANCELLED, "")


def test_a_refused_submission_leaves_no_record(tmp_path: Path):
    results = submitted(tmp_path, sizes=(1,), jobs=())
    (submission,) = read_submissions(results)
    forget_submission(results, submission)
    assert read_submissions(results) == []
