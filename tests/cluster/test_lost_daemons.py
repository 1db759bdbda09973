"""Slurm itself is away for a while, on a node or altogether, and sweeps end as if nothing had been."""

from collections.abc import Callable
from contextlib import ExitStack

import pyarrow as pa
import pytest

from slurm.devcluster import DevCluster
from tests.cluster.conftest import NewSubmitted
from tests.cluster.queries import ONLY, drain, job_facts, node_state, resume
from tests.cluster.ray_jobs import processes
from tests.cluster.waiting import wait_until
from tests.faults.driving import count_events

pytestmark = pytest.mark.xdist_group("cluster-b")


def test_slurmd_dies_on_the_first_node_of_one_sweep_and_on_a_further_node_of_another(
    cluster: DevCluster, new_sweep: NewSubmitted, expected: dict[str, pa.Table], nothing_left: Callable[[], None]
) -> None:
    first, further = new_sweep(name="first"), new_sweep(name="further")
    with ExitStack() as held:
        first.submit(exclude=ONLY["n1"])
        held.enter_context(first.held("solve"))
        further.submit(nodes=2, exclude="n1")
        held.enter_context(further.held("solve"))
        first.wait_for_events(60)
        further.wait_for_events(60)
        cluster.kill("slurmd.n1")
        cluster.kill("slurmd.n3")
        # An allocation without its first node starts anew elsewhere, one without another goes on.
        wait_until(lambda: job_facts(cluster, first.job())["Restarts"] == "1")
        wait_until(lambda: "node n3 given up" in further.log())
        # What is left of its first start does not end, which Slurm would take for the end of the job in its queue.
        wait_until(lambda: "waits to be ended" in first.log())
        assert job_facts(cluster, further.job())["Restarts"] == "0"
        # It was told to forget the nodes that do not answer; what runs there goes on until slurmd is back.
        assert {node_state(cluster, node)[-1] for node in ("n1", "n3")} == {"*"}
        # While slurmd ends what is left of the first start, Slurm takes another for a copy, and the node for broken.
        drain(cluster, "n1")
        cluster.start("slurmd.n1")
        cluster.start("slurmd.n3")
        job = first.job()
        wait_until(lambda: not any(f"slurmstepd: [{job}." in words for words in processes(cluster).values()))
        resume(cluster, "n1")
    for sweep in (first, further):
        assert sweep.wait() == 0, sweep.log()
        sweep.ended_as_if_nothing_had_been(expected)
    nothing_left()


def test_an_allocation_that_never_starts_is_cancelled_and_the_next_outlives_slurmctld_and_slurmdbd(
    cluster: DevCluster, new_sweep: NewSubmitted, expected: dict[str, pa.Table], nothing_left: Callable[[], None]
) -> None:
    sweep = new_sweep()
    drain(cluster, "n1")
    sweep.submit(exclude=ONLY["n1"])
    waited = sweep.ntksweep("wait", sweep.results, "--timeout", "1", check=False)
    assert waited.returncode == 3
    assert "allocations are still queued or running" in waited.stderr
    # Of a job that is a few seconds old the database knows nothing.
    wait_until(lambda: "down, drained or reserved" in sweep.status()["allocations"][0]["explanation"])
    sweep.ntksweep("cancel", sweep.results)

    sweep.ntksweep("resume", sweep.results, "--yes", "--profile", sweep.profile(exclude=ONLY["n2"]))
    with sweep.held("solve"):
        # Blocks are held as well until slurmctld is gone, so that there is work left that it goes without.
        with sweep.held("gram"):
            sweep.wait_for_events(40)
            cluster.kill("slurmctld")
            before = count_events(sweep.results)
        sweep.wait_for_events(before + 60)
        cluster.start("slurmctld")
        cluster.kill("slurmdbd")
        allocations = sweep.status()["allocations"]
        assert [each["state"] for each in allocations] == ["CANCELLED", "RUNNING"]
        assert {each["source"] for each in allocations} == {"squeue"}
    assert sweep.wait() == 0
    sweep.ended_as_if_nothing_had_been(expected)
    cluster.start("slurmdbd")
    nothing_left()
