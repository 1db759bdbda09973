"""Parsing of Slurm's output about jobs; missing output is never taken for an end."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm.errors import CommandError
from slurm.query.job_state import ENDED, LIVING, State, state_of
from slurm.query.states import JobState, sacct_states, squeue_states, tasks_of
from tests.slurm import recorded

LATER = datetime(2026, 11, 23, 2, 0, 0)

FROM_SACCT = {state.job: state for state in sacct_states(recorded.SACCT, now=LATER)}
FROM_SQUEUE = {state.job: state for state in squeue_states(recorded.SQUEUE)}


def from_squeue(state: str, exit_code: str = "0", reason: str = "None") -> JobState:
    (read,) = squeue_states(f"7|{state}|{exit_code}|{reason}||0:00|0|name\n")
    return read


def from_sacct(state: str, exit_code: str = "0:0", reason: str = "None") -> JobState:
    (read,) = sacct_states(f"7|{state}|{exit_code}|{reason}|None assigned|0|2026-11-23T01:00:00|name\n", now=LATER)
    return read


@pytest.mark.parametrize("states", [FROM_SACCT, FROM_SQUEUE], ids=["sacct", "squeue"])
def test_tasks_of_an_array_are_told_apart(states: dict[str, JobState]):
    array = {job: state.state for job, state in states.items() if job.startswith("4_")}
    assert array == (
        dict.fromkeys(["4_0", "4_1", "4_2"], State.COMPLETED)
        | dict.fromkeys(["4_3", "4_4"], State.RUNNING)
        | dict.fromkeys(["4_5", "4_6", "4_7", "4_8", "4_9"], State.PENDING)
    )
    assert len([job for job in states if job.startswith("15_")]) == 16
    assert states["15_302"].state is State.PENDING


def test_both_programs_say_the_same_of_the_same_jobs():
    assert FROM_SACCT.keys() == FROM_SQUEUE.keys()
    for job, state in FROM_SACCT.items():
        other = FROM_SQUEUE[job]
        assert (state.name, state.state, state.alive) == (other.name, other.state, other.alive), job
        assert (state.elapsed, state.nodes, state.succeeded) == (other.elapsed, other.nodes, other.succeeded), job
        if state.state not in (State.CANCELLED, State.TIMEOUT):
            assert (state.exit_code, state.explanation) == (other.exit_code, other.explanation), job
    assert {state.source for state in FROM_SACCT.values()} == {"sacct"}
    assert {state.source for state in FROM_SQUEUE.values()} == {"squeue"}


def test_a_job_is_described_in_full():
    assert FROM_SQUEUE["12"] == JobState(
        "12", "odd | name", State.RUNNING, True, (0, 0), "", "n1", 114, 0, "squeue"
    )  # fmt: skip
    assert FROM_SACCT["10"] == JobState(
        "10", "cancelled", State.CANCELLED, False, (0, 0), "", "n1", 4, None, "sacct"
    )  # fmt: skip
    assert FROM_SQUEUE["13"].restarts == 1
    assert FROM_SQUEUE["5"].reason == "JobHeldUser"


def test_only_what_ended_with_status_0_succeeded():
    assert {job for job, state in FROM_SACCT.items() if state.succeeded} == {"1", "4_0", "4_1", "4_2"}
    assert {job for job, state in FROM_SQUEUE.items() if state.succeeded} == {"1", "4_0", "4_1", "4_2"}
    assert not from_squeue("COMPLETED", "256").succeeded
    assert not from_sacct("COMPLETED", "0:15").succeeded
    assert not from_squeue("COMPLETED", "").succeeded


@given(st.text(st.characters(codec="ascii", exclude_characters="|\n\r\x0b\x0c\x1c\x1d\x1e"), max_size=20))
def test_an_unknown_state_is_neither_success_nor_end(word: str):
    if word.strip().partition(" ")[0].rstrip("+") in State.__members__:
        return
    for state in (from_squeue(word), from_sacct(word)):
        assert state.state is State.UNKNOWN
        assert state.alive is None
        assert not state.succeeded
        assert state.explanation.startswith("the scheduler does not report its state")


@pytest.mark.parametrize("word", ["GONE", "UNKNOWN", "REVOKED", "completed", "COMPLETED_", ""])
def test_words_that_slurm_does_not_use_so_are_unknown(word: str):
    assert state_of(word) is State.UNKNOWN


@pytest.mark.parametrize("word", ["CANCELLED by 1000", "CANCELLED+", "CANCELLED"])
def test_who_cancelled_a_job_does_not_matter(word: str):
    assert state_of(word) is State.CANCELLED
    assert from_sacct(word).alive is False


def test_every_state_but_the_unknown_one_either_lives_or_has_ended():
    assert LIVING | ENDED | {State.UNKNOWN} == set(State)
    assert not LIVING & ENDED


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_explained(state: State):
    explained = JobState("1", "", state, None, None, "", "", None, None, "sacct").explanation
    assert len(explained) > 3
    assert state.value not in explained


def test_a_job_that_lost_its_node_has_not_ended_for_certain_while_accounting_may_lag():
    ended = datetime(2026, 11, 23, 1, 20, 59)
    for state in sacct_states(recorded.SACCT_OF_A_LOST_NODE, now=ended + timedelta(seconds=2)):
        assert state.alive is None
        assert state.explanation.endswith("it may have been queued again")
    for state in sacct_states(recorded.SACCT_OF_A_LOST_NODE, now=ended + timedelta(minutes=2)):
        assert state.alive is False
    # The controller itself never lags.
    assert from_squeue("NODE_FAIL").alive is False


MEMORY = "killed (signal 9), by the memory limit as a rule where Slurm runs without cgroups"
LOST = "ReqNodeNotAvail, UnavailableNodes:n3"
ALL_LOST = "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions"
TOO_LONG = "will never start: its time limit is over the partition's; cancel it and lower time_limit"


@pytest.mark.parametrize(
    ("state", "explanation"),
    [
        (from_sacct("FAILED", "0:9"), MEMORY),
        (from_squeue("FAILED", "9"), MEMORY),
        (from_sacct("FAILED", "137:0"), MEMORY),
        (from_squeue("FAILED", "1792"), "failed with exit status 7"),
        (from_sacct("FAILED", "0:11"), "died of signal 11"),
        (from_squeue("FAILED", ""), "failed"),
        (from_sacct("OUT_OF_MEMORY", "0:125"), "needed more memory than the profile's `memory`"),
        (from_squeue("PENDING", reason="Resources"), "waits in the queue: it is next, and no nodes are free"),
        (from_squeue("PENDING", reason="PartitionTimeLimit"), TOO_LONG),
        (from_squeue("PENDING", reason="QOSGrpLimit"), "waits for a limit of your account or qos (QOSGrpLimit)"),
        (from_squeue("PENDING", reason=LOST), f"waits for nodes that are down, drained or reserved ({LOST})"),
        (from_squeue("PENDING", reason=ALL_LOST), f"waits for nodes that are down, drained or reserved ({ALL_LOST})"),
        (from_squeue("PENDING", reason="SomethingNew"), "waits in the queue (SomethingNew)"),
        (from_squeue("PENDING"), "waits in the queue; Slurm has not said why"),
        (from_sacct("PENDING", reason="JobHeldUser"), "is held; `scontrol release` lets it go"),
        (from_squeue("RUNNING", reason="JobArrayTaskLimit"), "runs"),
    ],
)
def test_states_are_explained_to_people(state: JobState, explanation: str):
    assert state.explanation == explanation


@pytest.mark.parametrize(
    ("entry", "tasks"),
    [
        ("12", ["12"]),
        ("12_3", ["12_3"]),
        ("12_[3]", ["12_3"]),
        ("12_[3-5,9%2]", ["12_3", "12_4", "12_5", "12_9"]),
        ("12_[0-8:4]", ["12_0", "12_4", "12_8"]),
        ("12_[1-3,...]", ["12_[1-3,...]"]),
        ("12+1", ["12+1"]),
    ],
)
def test_an_entry_for_several_tasks_is_taken_apart(entry: str, tasks: list[str]):
    assert tasks_of(entry) == tasks


@given(st.sets(st.integers(0, 500), min_size=1), st.booleans())
def test_any_set_of_tasks_is_taken_apart_as_slurm_writes_it(numbers: set[int], throttled: bool):
    parts, start = [], None
    for number in sorted(numbers):
        start = number if start is None else start
        if number + 1 not in numbers:
            parts.append(f"{start}-{number}" if number > start else f"{number}")
            start = None
    entry = f"7_[{','.join(parts)}{'%3' if throttled else ''}]"
    assert tasks_of(entry) == [f"7_{number}" for number in sorted(numbers)]


@pytest.mark.parametrize(
    ("elapsed", "seconds"), [("0:05", 5), ("1:02:03", 3723), ("2-01:00:00", 176_400), ("INVALID", None), ("", None)]
)
def test_the_time_that_a_job_ran_is_in_seconds(elapsed: str, seconds: int | None):
    (state,) = squeue_states(f"7|RUNNING|0|None|n1|{elapsed}|0|name\n")
    assert state.elapsed == seconds


@pytest.mark.parametrize("line", ["slurm says hello", "7|RUNNING", "7|RUNNING|0|None|n1|0:05|0"])
def test_a_line_that_cannot_be_read_is_an_error_and_not_a_job_that_is_gone(line: str):
    with pytest.raises(CommandError, match="no line that ntksweep can read"):
        squeue_states(line)
    with pytest.raises(CommandError, match="no line that ntksweep can read"):
        sacct_states(line, now=LATER)
