"""The choice of a finished solve stage by a plan, where its lowest lambda is another one and kernels are multiplied."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan.plan import Plan, make_plan
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.stage import Stage
from tests.orchestrator.sweeps import groups_of, plan_of, survey_of, sweep_of

SURVEY = survey_of(groups=groups_of(2, ("query", "value"), n_parameters=30_000))


def changes(lambdas: Sequence[float], more: dict[str, Any]) -> dict[str, Any]:
    return {
        "kernel.decomposition": "iterative",
        "grid.lambdas.values": list(lambdas),
        "grid.layer_sets": ["all_layers"],
    } | more


def solve_of(plan: Plan) -> Stage:
    (solve,) = plan.solves
    assert [stage for stage in plan.stages if stage.kind == "solve"] == [solve.stage]
    assert plan.of(solve.stage).layer_sets == solve.layer_sets
    return solve.stage


def own(*lambdas: float, **more: Any) -> Stage:
    """Return the stage that was made for some lambdas and not for others."""
    return solve_of(plan_of(changes(lambdas, more), survey=SURVEY))


def planned(store: ArtifactStore, *lambdas: float, **more: Any) -> Stage:
    """Return the stage that a plan of some lambdas takes where these artifacts are."""
    return solve_of(make_plan(sweep_of(changes(lambdas, more)), [SURVEY], store))


def publish(store: ArtifactStore, stage: Stage, *, complete: bool = False) -> None:
    lowest = stage.parameters.iterative.lowest_lambda
    store.publish(stage, {"lowest_lambda": lowest, "serves_from": 0.0 if complete else lowest}, {})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """Artifacts of two finished stages, made for 0.001 and for 0.1."""
    found = ArtifactStore(tmp_path / "artifacts")
    for lowest in (1e-3, 0.1):
        publish(found, own(lowest, 1.0))
    return found


def test_a_stage_knows_of_the_lowest_lambda_alone():
    assert own(0.1, 1.0) == own(0.1) == own(0.1, 0.3, 50.0)
    assert own(0.1) == own(0.1, **{"results.predictions": True})
    assert own(0.1).stage_id != own(0.2).stage_id


def test_the_nearest_that_was_made_for_a_lower_lambda_serves(store: ArtifactStore):
    assert planned(store, 0.1, 7.0) == own(0.1)
    assert planned(store, 1.0) == own(0.1)
    assert planned(store, 0.05, 1.0) == own(1e-3)
    assert planned(store, 1e-4, 1.0) == own(1e-4)


def test_its_own_comes_first(store: ArtifactStore):
    publish(store, own(0.5))
    assert planned(store, 0.5) == own(0.5)


def test_one_that_serves_every_lambda_serves_lower_ones(store: ArtifactStore):
    publish(store, own(0.5), complete=True)
    assert planned(store, 1e-4) == own(0.5)


@pytest.mark.parametrize(
    "more", [{"grid.lambdas.scale": "absolute"}, {"kernel.kind": "sign"}, {"grid.layer_sets": ["each_layer"]}]
)
def test_another_problem_is_not_served(store: ArtifactStore, more: dict[str, Any]):
    found = make_plan(sweep_of(changes([1.0], more)), [SURVEY], store)
    assert found.solves == plan_of(changes([1.0], more), survey=SURVEY).solves


def test_a_damaged_record_serves_nothing(store: ArtifactStore):
    record = store.record_path("solve", own(0.1).stage_id)
    record.write_bytes(record.read_bytes()[:-20])
    assert planned(store, 1.0) == own(1e-3)


def test_decompositions_are_what_was_planned(store: ArtifactStore):
    full = {"kernel.decomposition": "full"}
    assert planned(store, 1.0, **full) == own(0.01, **full)
