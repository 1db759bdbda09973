"""Waiting for the allocations of a sweep."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.cluster import waiting
from orchestrator.cluster.allocations import Allocation
from orchestrator.sweep.folder import ResultsFolder
from slurm.errors import CommandError
from slurm.query.job_state import State
from slurm.query.states import JobState


def one_that(state: State, alive: bool | None) -> list[Allocation]:
    return [Allocation("5ab1", "12", JobState("12", "name", state, alive, None, "", "", None, None, "sacct"))]


OUTAGE = CommandError("squeue", "Unable to contact slurm controller", "try again", passes=True)
REFUSED = CommandError("squeue", "Access denied", "run it by hand")
RUNNING, ENDED = one_that(State.RUNNING, True), one_that(State.FAILED, False)
UNKNOWN = one_that(State.UNKNOWN, None)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the waiting made; it does not sleep. Other threads of the process do, and are not counted."""
    made: list[float] = []
    monkeypatch.setattr(waiting, "time", SimpleNamespace(sleep=made.append, monotonic=time.monotonic))
    return made


def answer(monkeypatch: pytest.MonkeyPatch, *answers: list[Allocation] | Exception) -> None:
    """Have the scheduler give these answers, one after another."""
    remaining = list(answers)

    def allocations_of(_: ResultsFolder) -> list[Allocation]:
        given = remaining.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    monkeypatch.setattr(waiting, "allocations_of", allocations_of)


def test_an_outage_of_the_scheduler_and_a_job_it_does_not_know_yet_are_waited_out(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer(monkeypatch, UNKNOWN, RUNNING, OUTAGE, OUTAGE, RUNNING, ENDED)
    assert waiting.wait_for_allocations(ResultsFolder(tmp_path), None)
    assert len(pauses) == 5


def test_an_error_that_does_not_pass_ends_the_waiting(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer(monkeypatch, RUNNING, REFUSED)
    with pytest.raises(CommandError, match="Access denied"):
        waiting.wait_for_allocations(ResultsFolder(tmp_path), None)


def test_the_scheduler_is_asked_ever_more_rarely(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer(monkeypatch, *[RUNNING] * 20, ENDED)
    assert waiting.wait_for_allocations(ResultsFolder(tmp_path), None)
    assert pauses[0] == waiting.SHORTEST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == waiting.LONGEST_PAUSE


def test_a_timeout_that_is_over_ends_the_waiting(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer(monkeypatch, RUNNING)
    assert not waiting.wait_for_allocations(ResultsFolder(tmp_path), 0)
    assert pauses == []
