"""A process group over the nodes of an allocation: each node has one process, and none the whole model."""

from collections.abc import Callable

import pytest

from orchestrator.results.loading import load
from orchestrator.store.journal import read_journals
from tests.cluster.conftest import NewSubmitted
from tests.cluster.login import Login
from tests.cluster.ray_jobs import kill, pids_of
from tests.cluster.waiting import wait_until
from tests.faults.tables import numbers

pytestmark = pytest.mark.xdist_group("cluster-c")

SHARDED = {"sharding": {"group_size": 2}, "grid.seeds": [0, 1], "model.dtype": "float32"}


def test_two_nodes_hold_one_model_and_another_group_goes_on_where_one_loses_a_process(
    login: Login, new_sweep: NewSubmitted, nothing_left: Callable[[], None]
) -> None:
    sweep = new_sweep(SHARDED)
    refused = login.submit(sweep, nodes=1, memory="3GB")
    assert refused.status == 2
    assert "cannot be shared out among process groups of sharding.group_size: 2" in " ".join(refused.output.split())
    answer = login.submit(sweep, nodes=2, memory="3GB")
    assert answer.status == 0, answer.output
    assert login.must(sweep, "wait", sweep.results).count("COMPLETED") == 1
    cells = load(sweep.results).table("cells").to_pandas()
    assert cells["eval_loss"].notna().all()
    captured = [each for each in read_journals(sweep.results / "journal") if each.get("kind") == "capture"]
    assert {each["event"] for each in captured} == {"started", "finished"}
    assert len({each["journal"] for each in captured}) == 1
    nothing_left()

    killed = new_sweep(SHARDED, name="killed")
    assert login.submit(killed, nodes=2, memory="3GB").status == 0
    followers: list[int] = []

    def following() -> bool:
        followers[:] = pids_of(killed.cluster, "ray::Worker.follow")
        return bool(followers)

    wait_until(following)
    # The first two are measured before more are handed out.
    wait_until(lambda: len(list((killed.results / "artifacts/capture").glob("*.json"))) >= 3)
    kill(killed.cluster, followers[0])
    assert login.must(killed, "wait", killed.results).count("COMPLETED") == 1
    killed.ended_as_if_nothing_had_been(numbers(sweep.results))
    nothing_left()
