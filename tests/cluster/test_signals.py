"""Allocations that are told to stop: before their time limit, and when others take their nodes."""

from collections.abc import Callable
from contextlib import ExitStack

import pyarrow as pa
import pytest

from slurm.devcluster import DevCluster
from tests.cluster.conftest import NewSubmitted
from tests.cluster.submitted import wait_until

pytestmark = pytest.mark.xdist_group("cluster-b")


def nodes_of(cluster: DevCluster, job: str) -> str:
    return cluster.run(["squeue", "--noheader", f"--jobs={job}", "--format=%N"]).stdout.strip()


def test_an_allocation_goes_on_after_its_time_limit_on_a_node_that_is_not_drained_or_ends_and_says_so(
    cluster: DevCluster, new_sweep: NewSubmitted, expected: dict[str, pa.Table], nothing_left: Callable[[], None]
) -> None:
    again, once, preempted = (new_sweep(name=name) for name in ("again", "once", "preempted"))
    short = {"time_limit": "2m", "signal_seconds": 70}
    with ExitStack() as held:
        again.submit(requeues=1, **short)
        held.enter_context(again.held("solve"))
        assert nodes_of(cluster, again.job()) == "n1"
        once.submit(exclude="n[1-2]", requeues=0, **short)
        held.enter_context(once.held("solve"))
        preempted.submit(exclude="n1,n3")
        held.enter_context(preempted.held("solve"))
        again.wait_for_events(20)
        cluster.run(["scontrol", "update", "nodename=n1", "state=drain", "reason=test"])
        preempted.wait_for_events(20)
        urgent = ["sbatch", "--parsable", "--partition=high", "--nodelist=n2", "--exclusive", "--wrap=sleep 5"]
        high = cluster.run([*urgent, "--output=/dev/null"]).stdout.strip()
        wait_until(lambda: nodes_of(cluster, high) == "n2")
        assert once.wait() == 3
        wait_until(lambda: nodes_of(cluster, again.job()) in ("n2", "n3"))
    for sweep in (again, preempted):
        assert sweep.wait() == 0, sweep.log()
    once.ntksweep("resume", once.results, "--yes", "--profile", once.profile())
    assert once.wait() == 0
    for sweep in (again, once, preempted):
        sweep.ended_as_if_nothing_had_been(expected)
    nothing_left()
