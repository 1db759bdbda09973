"""The order in which a schedule begins stages: cells are completed one after the other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engine.order import places
from orchestrator.plan.plan import Plan
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.stage import Stage
from tests.orchestrator.engine.test_schedule import Told, schedule_of
from tests.orchestrator.stages.trained_sweeps import TRAINING
from tests.orchestrator.sweeps import plan_of

TRAINED: dict[str, Any] = {"finetune": TRAINING, "grid.seeds": [0, 1], "grid.n_train": [10, 6]}


def begun(plan: Plan, folder: Path, capacity: int) -> list[Stage]:
    """Return all stages in the order in which they are begun."""
    told = Told(plan, ArtifactStore(folder), capacity=capacity)
    schedule_of(plan, told).run()
    by_id = {stage.stage_id: stage for stage in plan.stages}
    return [by_id[stage_id] for stage_id in told.submitted]


def of_seed(plan: Plan, seed: int) -> set[str]:
    """Return the stages that the cells of a seed need."""
    by_id = {stage.stage_id: stage for stage in plan.stages}
    reached = [stage.stage_id for solve in plan.solves if solve.seed == seed for stage in solve.filling]
    found = set(reached)
    while reached:
        new = {stage_id for _, stage_id in by_id[reached.pop()].needs()} - found
        found |= new
        reached.extend(new)
    return found


def positions(stages: Sequence[Stage], *kinds: str) -> list[int]:
    return [number for number, stage in enumerate(stages) if stage.kind in kinds]


def test_one_worker_completes_a_seed_before_it_begins_the_next(tmp_path: Path):
    plan = plan_of(TRAINED)
    order = [stage.stage_id for stage in begun(plan, tmp_path, 1)]
    first, second = of_seed(plan, 0), of_seed(plan, 1)
    assert set(order[: len(first)]) == first
    assert set(order[len(first) :]) == second - first


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_kernels_come_before_trainings_and_comparisons_as_soon_as_they_can(tmp_path: Path, capacity: int):
    plan = plan_of({**TRAINED, "grid.seeds": [0]})
    order = begun(plan, tmp_path, capacity)
    if capacity == 1:  # more workers begin trainings where there is no kernel for them
        assert max(positions(order, "solve")) < min(positions(order, "finetune"))
    number = {stage.stage_id: place for place, stage in enumerate(order)}
    compared = [stage for stage in order if stage.kind == "compare"]
    assert len(compared) == 6
    for stage in compared:
        trained = [number[stage_id] for kind, stage_id in stage.needs() if kind == "finetune"]
        # what was begun meanwhile was in the line before its second training ended
        assert number[stage.stage_id] - max(trained) <= 2 * capacity - 1


def test_kernels_of_few_examples_come_before_those_of_many(tmp_path: Path):
    plan = plan_of({"grid.n_train": [10, 6], "grid.layer_sets": ["all_layers"]})
    sizes = [stage.parameters.problem.n_train for stage in begun(plan, tmp_path, 1) if stage.kind == "solve"]
    assert sizes == [6, 10]


@pytest.mark.parametrize("workers", [1, 2])
def test_several_workers_begin_long_chains_before_others_wait_for_them(workers: int):
    plan = plan_of({"grid.seeds": [0, 1, 2, 3], "compute.rows": "resident"})
    place = places(plan, plan.stages, workers)
    tiles: dict[str, list[int]] = {}
    for stage in plan.stages:
        if stage.together is not None:
            tiles.setdefault(stage.together.key, []).append(place[stage.stage_id])
    last_tiles = sorted(max(each) for each in tiles.values())
    first_kernel = min(place[solve.stage.stage_id] for solve in plan.solves)
    before = sum(last < first_kernel for last in last_tiles)
    per_seed = len(tiles) // 4
    # one worker completes a seed first; of several each has a chain, and one more is there for who ends first
    assert before == per_seed * (1 if workers == 1 else workers + 1)


def test_every_missing_stage_has_a_place_of_its_own_behind_its_inputs():
    plan = plan_of(TRAINED | {"kernel.additions": True})
    missing = list(plan.stages)[3:]
    found = places(plan, missing)
    assert sorted(found.values()) == list(range(len(missing)))
    for stage in missing:
        assert all(found.get(stage_id, -1) < found[stage.stage_id] for _, stage_id in stage.needs())
