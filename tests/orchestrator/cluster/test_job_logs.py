"""Reasons of their end in the logs of jobs."""

from pathlib import Path

import pytest

from orchestrator.cluster.logs import end_reason, logs_of
from orchestrator.errors import ResultsError
from orchestrator.sweep.folder import ResultsFolder
from slurm.submit.script import FAULT_MARK


def write_log(folder: Path, name: str, text: str) -> None:
    path = folder / "logs/slurm/5ab1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (f"slurm said\n{FAULT_MARK}there is no python on n1\nslurmstepd: error: ended\n", "there is no python on n1"),
        ("Traceback:\n  File\nsome.BadError: not there:\n/shared/file\n\n", "some.BadError: not there: /shared/file"),
        ("slurmstepd: error: *** JOB 12 CANCELLED ***\n", "slurmstepd: error: *** JOB 12 CANCELLED ***"),
        ("why it ended\nntksweep ray node: ended\nsrun: Job step aborted\n", "why it ended"),
        ("some.Error: 1\n2\n3\n4\n5\n6\n", "some.Error: 1 2 3 4 5"),
        ("", ""),
    ],
)
def test_the_last_words_of_a_job_say_why_it_ended(errors: str, words: str, tmp_path: Path) -> None:
    write_log(tmp_path, "12_0_log.out", "ValueError: this is what the job printed\n")
    write_log(tmp_path, "12_0_log.err", errors)
    write_log(tmp_path, "13_0_log.err", "RuntimeError: of another job\n")
    assert end_reason(ResultsFolder(tmp_path), "5ab1", "12") == words


def test_a_job_without_a_log_never_began_or_could_not_write_it(tmp_path: Path) -> None:
    assert "its nodes do not see the results folder" in end_reason(ResultsFolder(tmp_path), "5ab1", "12")
    with pytest.raises(ResultsError, match=r"there are no logs of job 12 in .*; jobs that never began leave none"):
        logs_of(ResultsFolder(tmp_path), "12", 10)


def test_the_logs_of_a_job_are_those_of_its_nodes_too_and_of_no_other_job(tmp_path: Path) -> None:
    for name in ("12_0_log.err", "12_3_0_log.out", "12_3_nodes/ray-n1.log", "3_0_log.out"):
        write_log(tmp_path, name, "1\n2\n3\n")
    write_log(tmp_path, "12_3_0_log.err", "")
    found = logs_of(ResultsFolder(tmp_path), "12_3", 2)
    assert [Path(log.path).name for log in found] == ["12_3_0_log.out", "ray-n1.log"]
    assert {log.text for log in found} == {"2\n3"}
    # Of all jobs what Ray said on their nodes would hide what they did.
    everyone = logs_of(ResultsFolder(tmp_path), None, 2)
    assert [Path(log.path).name for log in everyone] == ["12_0_log.err", "12_3_0_log.out", "3_0_log.out"]


def test_processes_leave_logs_of_their_jobs_or_of_none(tmp_path: Path) -> None:
    for name in ("12_n1-7-ab.log", "12_3_n1-8-ab.log", "2_n1-9-ab.log", "n1-10-ab.log"):
        path = tmp_path / "logs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("a line\n")
    (tmp_path / "logs/link.log").symlink_to(tmp_path / "logs/n1-10-ab.log")
    folder = ResultsFolder(tmp_path)
    found = {job: [Path(log.path).name for log in logs_of(folder, job, 5)] for job in ("12", "12_3", "2", None)}
    assert found == {
        "12": ["12_n1-7-ab.log"],
        "12_3": ["12_3_n1-8-ab.log"],
        "2": ["2_n1-9-ab.log"],
        None: ["n1-10-ab.log"],
    }
