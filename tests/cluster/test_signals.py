"""Allocations that are told to stop: before their time limit, and when others take their nodes."""

from collections.abc import Callable
from contextlib import ExitStack

import pyarrow as pa
import pytest

from slurm.devcluster import DevCluster
from tests.cluster.conftest import NewSubmitted
from tests.cluster.queries import ONLY, drain, job_facts
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.xdist_group("cluster-b")


SHORT = {"time_limit": "2m", "signal_seconds": 50}
"""Slurm sends its signal up to half a minute early: 40 to 70 seconds after the start."""


def test_at_its_time_limit_an_allocation_goes_on_elsewhere_or_says_that_it_may_not_and_a_preempted_one_goes_on(
    cluster: DevCluster, new_sweep: NewSubmitted, expected: dict[str, pa.Table], nothing_left: Callable[[], None]
) -> None:
    again, once, preempted = (new_sweep(name=name) for name in ("again", "once", "preempted"))
    with ExitStack() as held:
        again.submit(**SHORT)
        held.enter_context(again.held("solve"))
        wait_until(lambda: job_facts(cluster, again.job())["JobState"] == "RUNNING")
        assert job_facts(cluster, again.job())["NodeList"] == "n1"
        # A drained node lets what runs there go on, and takes nothing more.
        drain(cluster, "n1")
        once.submit(exclude=ONLY["n3"], requeues=0, **SHORT)
        held.enter_context(once.held("solve"))
        preempted.submit(exclude=ONLY["n2"])
        held.enter_context(preempted.held("solve"))

        preempted.wait_for_events(20)
        urgent = ["sbatch", "--parsable", "--partition=high", "--nodelist=n2", "--exclusive", "--wrap=true"]
        high = cluster.run([*urgent, "--output=/dev/null"]).stdout.strip()
        wait_until(lambda: job_facts(cluster, high)["JobState"] == "COMPLETED")
        wait_until(lambda: job_facts(cluster, again.job())["Restarts"] != "0")
        assert once.wait() == 3
        assert "was queued again as often as the profile's `requeues` allows" in once.log()
    once.ntksweep("resume", once.results, "--yes", "--profile", once.profile())
    for sweep in (again, preempted, once):
        assert sweep.wait() == 0, sweep.log()
        sweep.ended_as_if_nothing_had_been(expected)
    assert job_facts(cluster, preempted.job())["Restarts"] == "1"
    assert again.hosts()[0] == "n1"
    assert len(again.hosts()) > 1
    nothing_left()
