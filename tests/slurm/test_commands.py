"""Slurm's programs are run again when what failed passes, and explained when it does not."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from slurm.errors import CommandError, NoSlurmError
from slurm.query import commands
from slurm.query.commands import run_command, run_command_for_messages
from slurm.query.job_state import State
from slurm.query.states import query_states
from tests.slurm.programs import Programs

DOWN = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
NO_DATABASE = "echo 'sacct: error: Problem talking to the database: Connection refused' >&2; exit 1"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs(tmp_path)
    monkeypatch.setenv("PATH", str(programs.folder))
    monkeypatch.setattr(commands, "_FIRST_PAUSE", 0.02)
    return programs


def fails_first(times: int, how: str, counter: Path) -> str:
    return (
        f'n=$(cat {counter} 2>/dev/null || echo 0); echo $((n+1)) > {counter}; if [ "$n" -lt {times} ]; then {how}; fi'
    )


def test_a_machine_without_slurm_is_told_as_such(programs: Programs):
    with pytest.raises(NoSlurmError) as raised:
        run_command("sinfo")
    assert str(raised.value) == (
        "there is no Slurm on this machine: `sinfo` was not found; submit from a login node of the cluster, or try "
        "`ntksweep devcluster up`, which starts a small one here"
    )


@pytest.mark.parametrize(
    "said",
    [
        "sinfo: fatal: Could not establish a configuration source",
        "sinfo: error: s_p_parse_file: cannot stat file /etc/slurm/slurm.conf: No such file or directory",
        "sinfo: fatal: Unable to process configuration file",
    ],
)
def test_programs_without_a_cluster_are_no_slurm_either(programs: Programs, said: str):
    programs.add("sinfo", f"echo '{said}' >&2; exit 1")
    with pytest.raises(NoSlurmError, match=r"`sinfo` is installed but finds no cluster \(sinfo: "):
        run_command("sinfo")
    assert len(programs.calls()) == 1


def test_a_program_that_hangs_for_want_of_a_cluster_is_told_as_such(programs: Programs):
    programs.add("sinfo", "echo 'sinfo: error: cannot stat file : No such file, retrying in 1sec' >&2; exec sleep 100")
    with pytest.raises(NoSlurmError, match="finds no cluster"):
        run_command("sinfo", timeout=0.5)


@pytest.mark.parametrize(
    "said",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "slurm_load_jobs error: Socket timed out on send/recv operation",
        "sacct: error: Problem talking to the database: Connection refused",
        "sbatch: error: Slurm backup controller in standby mode",
        "squeue: error: Zero Bytes were transmitted or received",
    ],
)
def test_a_controller_that_is_away_for_a_moment_is_asked_again(programs: Programs, tmp_path: Path, said: str):
    programs.add("squeue", fails_first(2, f"echo '{said}' >&2; exit 1", tmp_path / "count") + "; echo here")
    assert run_command("squeue") == "here\n"
    assert len(programs.calls()) == 3


def test_what_stays_away_is_given_up_after_a_while(programs: Programs):
    programs.add("squeue", DOWN)
    begun = time.monotonic()
    with pytest.raises(CommandError) as raised:
        run_command("squeue", "--me", patience=0.4)
    assert time.monotonic() - begun < 30
    assert raised.value.passes
    assert str(raised.value) == (
        "`squeue --me` failed: slurm_load_jobs error: Unable to contact slurm controller (connect failure); "
        "Slurm does not answer at the moment; try again in a minute, `scontrol ping` says whether it is up"
    )
    assert 2 <= len(programs.calls()) < 30


def test_without_patience_a_program_is_run_once(programs: Programs):
    programs.add("squeue", DOWN)
    with pytest.raises(CommandError):
        run_command("squeue", patience=0)
    assert len(programs.calls()) == 1


def test_pauses_grow_and_differ_from_process_to_process(programs: Programs, monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []
    monkeypatch.setattr(commands, "_FIRST_PAUSE", 0.5)
    monkeypatch.setattr(commands, "time", SimpleNamespace(sleep=pauses.append, monotonic=lambda: sum(pauses)))
    programs.add("squeue", DOWN)
    with pytest.raises(CommandError):
        run_command("squeue", patience=60)
    means = [0.5, 1, 2, 4, *[8] * len(pauses)]
    assert len(pauses) > 5
    assert all(0.5 * mean <= pause <= 1.5 * mean for pause, mean in zip(pauses, means, strict=False))
    assert sum(pauses) <= 60
    assert pauses != means[: len(pauses)]


def test_a_mistake_is_told_at_once_with_what_was_said(programs: Programs):
    programs.add("scontrol", "echo 'Node nosuch not found'; exit 1")
    with pytest.raises(CommandError, match="`scontrol show node nosuch` failed: Node nosuch not found; run it by hand"):
        run_command("scontrol", "show", "node", "nosuch")
    programs.add("scancel", "exit 3")
    with pytest.raises(CommandError, match="`scancel` failed: exit status 3") as raised:
        run_command("scancel")
    assert not raised.value.passes
    assert len(programs.calls()) == 2


def test_a_program_that_hangs_is_given_up_as_something_that_passes(programs: Programs):
    programs.add("squeue", "exec sleep 100")
    with pytest.raises(CommandError, match="timed out after") as raised:
        run_command("squeue", timeout=0.3, patience=0)
    assert raised.value.passes


def test_a_program_that_cannot_be_run_is_told(programs: Programs):
    programs.add("squeue", "")
    (programs.folder / "squeue").chmod(0o644)
    with pytest.raises(CommandError, match="see whether Slurm is installed as it should be"):
        run_command("squeue")


def test_formats_and_filters_of_the_user_do_not_reach_slurm(programs: Programs, monkeypatch: pytest.MonkeyPatch):
    for name in ("SQUEUE_STATES", "SACCT_FORMAT", "SINFO_PARTITION", "SLURM_CLUSTERS", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    programs.add("squeue", "env")
    seen = dict(line.split("=", 1) for line in run_command("squeue").splitlines())
    assert not {"SQUEUE_STATES", "SACCT_FORMAT", "SINFO_PARTITION"} & seen.keys()
    # What says which cluster or account is meant does.
    assert seen["SLURM_CLUSTERS"] == seen["SBATCH_ACCOUNT"] == "mine"
    assert (seen["LC_ALL"], seen["SLURM_BITSTR_LEN"]) == ("C", "0")


def test_input_and_messages_pass_through(programs: Programs):
    programs.add("sbatch", "cat >&2")
    assert run_command_for_messages("sbatch", input="#!/bin/sh\n") == "#!/bin/sh\n"
    programs.add("sbatch", "cat")
    assert run_command("sbatch", input="x") == "x"
    assert run_command("sbatch") == ""


# --- which program is asked how jobs stand


def test_one_command_serves_any_number_of_jobs(programs: Programs):
    programs.add("sacct", 'for n in 1 2 3; do echo "$n|RUNNING|0:0|None|n1|5|Unknown|x"; done')
    states = query_states([str(number) for number in range(1, 2001)], accounting=True)
    assert len(programs.calls()) == 1
    assert len(states) == 2000
    assert [states[job].state for job in ("1", "3", "4", "2000")] == [State.RUNNING] * 2 + [State.UNKNOWN] * 2
    assert states["4"].alive is None


def test_why_jobs_wait_is_asked_of_the_controller_and_in_its_absence_of_the_database(programs: Programs):
    programs.add(
        "sacct",
        "echo '1|PENDING|0:0|None||0|Unknown|x'; echo '2|RUNNING|0:0|None|n1|5|Unknown|x'; "
        "echo '3_[0-1]|PENDING|0:0|BeginTime||0|Unknown|x'; echo '4|PENDING|0:0|Dependency||0|Unknown|x'",
    )
    programs.add(
        "squeue",
        "echo '1|PENDING|0|ReqNodeNotAvail, UnavailableNodes:n1||0:00|0|x'; "
        "echo '3_[0-1]|PENDING|0|Resources||0:00|0|x'; echo '4|RUNNING|0|None|n2|0:01|0|x'",
    )
    states = query_states(["1", "2", "3", "4"], accounting=True)
    reasons = {job: state.reason for job, state in states.items()}
    assert reasons == {
        "1": "ReqNodeNotAvail, UnavailableNodes:n1", "2": "", "3_0": "Resources", "3_1": "Resources", "4": "Dependency",
    }  # fmt: skip
    assert "down, drained or reserved" in states["1"].explanation
    assert {state.source for state in states.values()} == {"sacct"}
    assert "--jobs=1,3,4 " in programs.calls()[1]
    assert len(programs.calls()) == 2

    programs.add("squeue", DOWN)
    assert query_states(["4"], accounting=True)["4"].reason == "Dependency"
    assert len(programs.calls()) == 4


def test_no_jobs_are_no_question(programs: Programs):
    assert query_states([], accounting=True) == {}
    assert programs.calls() == []


def test_without_its_database_the_controller_is_asked(programs: Programs):
    programs.add("sacct", NO_DATABASE)
    programs.add("squeue", 'echo "1|RUNNING|0|None|n1|0:05|0|x"')
    states = query_states(["1", "2"], accounting=True)
    assert (states["1"].state, states["1"].source) == (State.RUNNING, "squeue")
    assert (states["2"].state, states["2"].alive, states["2"].succeeded) == (State.GONE, False, False)
    assert programs.calls()[-1].startswith("squeue ")


def test_a_job_that_nobody_knows_is_gone_for_the_controller_alone(programs: Programs):
    programs.add("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    (state,) = query_states(["77"], accounting=False).values()
    assert (state.job, state.state, state.succeeded, state.source) == ("77", State.GONE, False, "squeue")
    assert len(programs.calls()) == 1


def test_a_controller_that_does_not_answer_is_an_error_and_no_state(programs: Programs, monkeypatch):
    monkeypatch.setattr(commands, "_LONGEST_PAUSE", 1e9)
    monkeypatch.setattr(commands, "_FIRST_PAUSE", 1e9)
    programs.add("sacct", NO_DATABASE)
    programs.add("squeue", DOWN)
    for accounting in (True, False):
        with pytest.raises(CommandError, match="Unable to contact slurm controller"):
            query_states(["1"], accounting=accounting)


def test_a_mistake_in_asking_the_database_is_not_hidden(programs: Programs):
    programs.add("sacct", "echo 'sacct: error: invalid field requested' >&2; exit 1")
    with pytest.raises(CommandError, match="invalid field requested"):
        query_states(["1"], accounting=True)


def test_jobs_without_a_number_are_found_by_name(programs: Programs):
    programs.add("sacct", 'echo "1|COMPLETED|0:0|None|n1|5|2026-11-23T01:38:49|a"')
    programs.add("squeue", 'echo "9_[0-1]|PENDING|0|Resources||0:00|0|b"')
    states = query_states(["1"], ["b", "never-submitted"], accounting=True)
    assert {job: state.name for job, state in states.items()} == {"1": "a", "9_0": "b", "9_1": "b"}
    assert len(programs.calls()) == 2
    assert "--name=b,never-submitted" in programs.calls()[1]
