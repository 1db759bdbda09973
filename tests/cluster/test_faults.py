"""Whatever is killed in an allocation, the sweep ends as if nothing had been."""

from collections.abc import Callable
from contextlib import ExitStack

import pyarrow as pa
import pytest

from slurm.devcluster import DevCluster
from tests.cluster.conftest import NewSubmitted
from tests.cluster.queries import ONLY
from tests.cluster.ray_jobs import kill, pids_of
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.xdist_group("cluster-a")


def test_a_worker_and_then_the_driver_are_killed(
    cluster: DevCluster, new_sweep: NewSubmitted, expected: dict[str, pa.Table], nothing_left: Callable[[], None]
) -> None:
    sweep = new_sweep()
    sweep.submit()
    with sweep.held("solve"):
        sweep.wait_for_events(40)
        kill(cluster, sweep.workers()[0])
        sweep.wait_for_events(150)
        kill(cluster, sweep.driver())
        wait_until(lambda: "the driver was killed by signal 9" in sweep.log())
    assert sweep.wait() == 0
    proof = sweep.ended_as_if_nothing_had_been(expected)
    assert proof.cut_short <= 2
    nothing_left()


def test_the_batch_process_is_killed_an_allocation_is_cancelled_another_is_queued_again(
    cluster: DevCluster, new_sweep: NewSubmitted, expected: dict[str, pa.Table], nothing_left: Callable[[], None]
) -> None:
    killed, cancelled, requeued = (new_sweep(name=name) for name in ("killed", "cancelled", "requeued"))
    with ExitStack() as held:
        for sweep, node in ((killed, "n1"), (cancelled, "n2"), (requeued, "n3")):
            sweep.submit(exclude=ONLY[node])
            held.enter_context(sweep.held("solve"))
        for sweep in (killed, cancelled, requeued):
            sweep.wait_for_events(60)
        kill(cluster, killed.supervisor())
        cancelled.ntksweep("cancel", cancelled.results)
        cluster.run(["scontrol", "requeue", requeued.job()])
        assert killed.wait() == 3
        assert cancelled.wait() == 3
        assert [each["state"] for each in killed.status()["allocations"]] == ["FAILED"]
        assert [each["state"] for each in cancelled.status()["allocations"]] == ["CANCELLED"]
    for sweep in (killed, cancelled):
        sweep.ntksweep("resume", sweep.results, "--yes", "--trust-profile")
    for sweep in (killed, cancelled, requeued):
        assert sweep.wait() == 0, sweep.log()
        sweep.ended_as_if_nothing_had_been(expected)
    nothing_left()


def test_a_raylet_is_killed_on_a_further_node_and_then_that_of_the_head(
    cluster: DevCluster, new_sweep: NewSubmitted, expected: dict[str, pa.Table], nothing_left: Callable[[], None]
) -> None:
    sweep = new_sweep()
    sweep.submit(nodes=2, exclude="n3")
    with sweep.held("solve"):
        sweep.wait_for_events(40)
        kill(cluster, pids_of(cluster, "raylet/raylet", "address=127.0.1.2")[0])
        wait_until(lambda: "node n2 restarted" in sweep.log())
        kill(cluster, pids_of(cluster, "raylet/raylet", "address=127.0.1.1")[0])
        wait_until(lambda: "starting again (1 of 3)" in sweep.log())
    assert sweep.wait() == 0
    sweep.ended_as_if_nothing_had_been(expected)
    nothing_left()
