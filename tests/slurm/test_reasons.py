"""Why a job waits, where the database of ended jobs does not know."""

from pathlib import Path

import pytest

from slurm.states import query_states
from tests.slurm.programs import Programs

WAITS = "12|PENDING|0:0|None||0|Unknown|sweep"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    made = Programs(tmp_path)
    monkeypatch.setenv("PATH", str(made.folder))
    return made


def test_the_controller_is_asked_for_the_reason_that_the_database_lacks(programs: Programs):
    programs.add("sacct", f"echo '{WAITS}'; echo '13|RUNNING|0:0|None|n1|5|Unknown|sweep'")
    programs.add("squeue", "echo '12|PENDING|0|Resources||0:00|0|sweep'")
    states = query_states(["12", "13"], accounting=True)
    assert states["12"].explanation == "waits in the queue: it is next, and no nodes are free"
    assert states["13"].source == "sacct"
    assert [call.split()[0] for call in programs.calls()] == ["sacct", "squeue"]


def test_a_known_reason_needs_no_second_question(programs: Programs):
    programs.add("sacct", f"echo '{WAITS.replace('None', 'Resources', 1)}'")
    programs.add("squeue", "exit 1")
    assert query_states(["12"], accounting=True)["12"].reason == "Resources"
    assert len(programs.calls()) == 1


def test_a_job_that_waits_without_a_reason_is_reported_although_the_controller_is_away(programs: Programs):
    programs.add("sacct", f"echo '{WAITS}'")
    programs.add("squeue", "echo 'squeue: error: no such option' >&2; exit 1")
    assert query_states(["12"], accounting=True)["12"].explanation == "waits in the queue"
