"""Whatever is killed in an allocation, the sweep ends as if nothing had been."""

from collections.abc import Callable

import pyarrow as pa
import pytest

from slurm.devcluster import DevCluster
from tests.cluster.conftest import NewSubmitted
from tests.cluster.ray_jobs import kill, pids_of

pytestmark = pytest.mark.xdist_group("cluster-b")


def test_a_worker_and_then_the_driver_are_killed(
    cluster: DevCluster, new_sweep: NewSubmitted, expected: dict[str, pa.Table], nothing_left: Callable[[], None]
) -> None:
    sweep = new_sweep()
    sweep.submit(tasks_per_node=2)
    sweep.wait_for_events(40)
    kill(cluster, sweep.workers()[0])
    sweep.wait_for_events(150)
    kill(cluster, pids_of(cluster, "orchestrator.cluster.pilot", str(sweep.results))[0])
    assert sweep.wait() == 0
    sweep.ended_as_if_nothing_had_been(expected)
    nothing_left()
