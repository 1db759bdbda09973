"""On a real Slurm: how jobs stand, from one command or two, and never better than it is."""

import threading
from pathlib import Path
from signal import SIGTERM

import pytest

from slurm.devcluster import DevCluster
from slurm.query.job_state import State
from slurm.query.states import JobState, query_states
from tests.cluster.clients import login_node, submit
from tests.cluster.queries import drain
from tests.cluster.waiting import wait_until
from tests.slurm.programs import Programs

pytestmark = pytest.mark.xdist_group("cluster-c")

ACCOUNTING = pytest.mark.parametrize("accounting", [True, False], ids=["sacct", "squeue"])


@pytest.fixture
def programs(cluster: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return login_node(cluster, tmp_path, monkeypatch)


def states_of(*jobs: str, accounting: bool = True) -> dict[str, State]:
    return {job: state.state for job, state in query_states(jobs, accounting=accounting).items()}


def ended(job: str, accounting: bool) -> JobState:
    wait_until(lambda: query_states([job], accounting=accounting)[job].alive is False)
    return query_states([job], accounting=accounting)[job]


@ACCOUNTING
def test_tasks_of_an_array_that_wait_run_and_have_ended_are_told_apart(
    cluster: DevCluster, programs: Programs, accounting: bool
):
    script = "test $SLURM_ARRAY_TASK_ID -lt 2 || sleep 1000"
    job = submit(cluster, script, "--array=0-1000%2")
    expected = (
        dict.fromkeys([f"{job}_0", f"{job}_1"], State.COMPLETED)
        | dict.fromkeys([f"{job}_2", f"{job}_3"], State.RUNNING)
        | dict.fromkeys([f"{job}_{task}" for task in range(4, 1001)], State.PENDING)
    )
    wait_until(lambda: states_of(job, accounting=accounting) == expected)
    before = len(programs.calls())
    states = query_states([job], accounting=accounting)
    asked = [call.split()[0] for call in programs.calls()[before:]]
    assert asked == (["sacct", "squeue"] if accounting else ["squeue"])
    assert states[f"{job}_0"].succeeded
    assert states[f"{job}_2"].alive
    assert states[f"{job}_2"].nodes in ("n1", "n2", "n3")
    assert not states[f"{job}_4"].succeeded


@ACCOUNTING
def test_any_number_of_jobs_takes_the_same_commands(cluster: DevCluster, programs: Programs, accounting: bool):
    jobs = [submit(cluster, "true", "--hold") for _ in range(12)]
    wait_until(lambda: set(states_of(*jobs, accounting=accounting).values()) == {State.PENDING})
    before = len(programs.calls())
    states = query_states([*jobs, "999999"], accounting=accounting)
    assert len(programs.calls()) == before + (2 if accounting else 1)  # the controller knows why they wait
    assert states.keys() == {*jobs, "999999"}
    assert not states["999999"].succeeded
    assert states["999999"].state is (State.UNKNOWN if accounting else State.GONE)


@pytest.mark.usefixtures("programs")
def test_a_job_that_waits_says_why_it_waits_now(cluster: DevCluster):
    running = submit(cluster, "sleep 1000", "--nodelist=n2", "--exclusive")
    wait_until(lambda: states_of(running)[running] is State.RUNNING)
    job = submit(cluster, "true", "--nodelist=n2")
    wait_until(lambda: query_states([job], accounting=True)[job].reason == "Resources")
    # The database has heard of it by now, and is told of no other reason.
    drain(cluster, "n2")
    wait_until(lambda: "down, drained or reserved" in query_states([job], accounting=True)[job].explanation)
    assert query_states([job], accounting=True)[job].source == "sacct"


@ACCOUNTING
@pytest.mark.usefixtures("programs")
def test_how_a_job_ended_is_explained(cluster: DevCluster, accounting: bool):
    hungry = "exec python3 -c 'import time; x = bytearray(400 << 20); time.sleep(1000)'"
    failing, memory = submit(cluster, "exit 7"), submit(cluster, hungry, "--mem=50")
    cancelled, good = submit(cluster, "sleep 1000"), submit(cluster, "true")
    wait_until(lambda: states_of(cancelled, accounting=accounting)[cancelled] is State.RUNNING)
    cluster.run(["scancel", cancelled])
    assert (ended(failing, accounting).state, ended(failing, accounting).exit_code) == (State.FAILED, (7, 0))
    assert ended(failing, accounting).explanation == "failed with exit status 7"
    assert (ended(memory, accounting).state, ended(memory, accounting).exit_code) == (State.FAILED, (0, 9))
    assert ended(memory, accounting).explanation.startswith("killed (signal 9), by the memory limit as a rule")
    assert ended(cancelled, accounting).state is State.CANCELLED
    assert ended(good, accounting).succeeded
    assert not any(ended(job, accounting).succeeded for job in (failing, memory, cancelled))


@pytest.mark.usefixtures("programs")
def test_without_its_database_the_controller_is_asked(cluster: DevCluster):
    job = submit(cluster, "sleep 1000")
    wait_until(lambda: states_of(job)[job] is State.RUNNING)
    assert query_states([job], accounting=True)[job].source == "sacct"
    cluster.kill("slurmdbd")
    state = query_states([job], accounting=True)[job]
    assert (state.state, state.alive, state.source) == (State.RUNNING, True, "squeue")
    cluster.start("slurmdbd")
    wait_until(lambda: query_states([job], accounting=True)[job].source == "sacct")


def test_a_controller_that_restarts_is_waited_for(cluster: DevCluster, programs: Programs):
    job = submit(cluster, "sleep 1000")
    cluster.kill("slurmctld", SIGTERM)

    def start_when_asked_again() -> None:
        # The program itself gives up after some seconds.
        wait_until(lambda: len(programs.calls()) > 1)
        cluster.start("slurmctld")

    starting = threading.Thread(target=start_when_asked_again)
    starting.start()
    try:
        assert query_states([job], accounting=False)[job].alive
    finally:
        starting.join()


@pytest.mark.usefixtures("programs")
def test_with_its_controller_away_the_database_still_knows_what_has_ended(cluster: DevCluster):
    job = submit(cluster, "true")
    ended(job, accounting=True)
    cluster.kill("slurmctld")
    assert query_states([job], accounting=True)[job].succeeded


@pytest.mark.parametrize("event", ["requeue", "node lost"])
@pytest.mark.usefixtures("programs")
def test_a_job_that_is_queued_again_never_seems_to_have_ended(cluster: DevCluster, event: str):
    job = submit(cluster, "sleep 1000", "--requeue", "--nodelist=n3")
    wait_until(lambda: states_of(job)[job] is State.RUNNING)
    if event == "requeue":
        cluster.run(["scontrol", "requeue", job])
    else:
        cluster.run(["scontrol", "update", "nodename=n3", "state=down", "reason=test"])
    seen: list[JobState] = []

    def waits_again() -> bool:
        seen.append(query_states([job], accounting=True)[job])
        return seen[-1].state is State.PENDING

    wait_until(waits_again)
    assert not [state for state in seen if state.alive is False]
    assert query_states([job], accounting=False)[job].restarts == 1


@pytest.mark.usefixtures("programs")
def test_jobs_without_a_number_are_found_by_their_name(cluster: DevCluster):
    array = submit(cluster, "sleep 1000", "--job-name=sweep-1a2b", "--array=0-2")
    other = submit(cluster, "sleep 1000", "--job-name=sweep-9z")
    states = query_states([other], ["sweep-1a2b", "sweep-none"], accounting=False)
    assert states.keys() == {other, f"{array}_0", f"{array}_1", f"{array}_2"}
    assert {state.name for state in states.values()} == {"sweep-1a2b", "sweep-9z"}
