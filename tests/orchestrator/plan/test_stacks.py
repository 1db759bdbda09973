"""Stacks of cells in a sweep that grows: those that were begun stay, and others are stacked as the grid says."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from orchestrator.plan.plan import Plan, make_plan
from orchestrator.stages.finetune import FINETUNE, RunParameters, runs_of
from orchestrator.store.stage import Stage
from orchestrator.sweep.choices import choices
from orchestrator.sweep.stacked_before import StackedBefore
from tests.orchestrator.sweeps import sources_of, survey_of, sweep_of

TRAINING: dict[str, Any] = {"learning_rate": 0.05, "epochs": 1, "batch_size": 4, "stacked_cells": 3}
SEEDS, BOTH = {"stacked_across": ["seeds"]}, {"stacked_across": ["learning_rates", "seeds"]}


def spec(lambdas: Sequence[float], settings: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return changes of the tiny spec."""
    return {
        "grid.lambdas": {"values": list(lambdas)}, "grid.layer_sets": ["each_layer"],
        "adapter.initialization": "random",
        "finetune": TRAINING | (settings or {}), **{name.replace("__", "."): value for name, value in changes.items()},
    }  # fmt: skip


def anything(_: Stage) -> bool:
    return True


class Folder:
    """A results folder whose sweeps are planned, and of which some stages are said to be begun."""

    def __init__(self) -> None:
        self._before: StackedBefore = StackedBefore()
        self._spec: Any = None
        self._begun: set[str] = set()

    def plan(self, changes: dict[str, Any]) -> Plan:
        """Return the plan of the tiny spec with changes."""
        sweep = sweep_of(changes, sources=_sources(changes))
        if self._spec is not None:
            self._before = self._before.grown(self._spec, sweep.spec, lambda: self._begun)
        self._spec = sweep.spec
        sweep = replace(sweep, stacked_before=self._before)
        return make_plan(sweep, [survey_of()] * len(choices(sweep.spec)))

    def run(self, changes: dict[str, Any], begun: Callable[[Stage], bool] = anything) -> Plan:
        """Return the same plan, of which some trainings are begun."""
        plan = self.plan(changes)
        self._begun |= {stage.stage_id for stage in plan.stages if stage.of is FINETUNE and begun(stage)}
        return plan


def _sources(changes: dict[str, Any]) -> Any:
    sources = sources_of()
    tasks = changes.get("grid.tasks") or {}
    return replace(sources, tasks=dict.fromkeys(tasks, sources.data)) if tasks else sources


def fresh(changes: dict[str, Any]) -> Plan:
    return Folder().plan(changes)


def identities(plan: Plan, *kinds: str) -> set[str]:
    return {stage.stage_id for stage in plan.stages if stage.kind in (kinds or ("finetune", "compare"))}


def models(plan: Plan) -> list[list[RunParameters]]:
    """Return the runs of each stage that trains the model itself."""
    stages = [[run.parameters for run in runs_of(stage)] for stage in plan.stages if stage.of is FINETUNE]
    return [runs for runs in stages if runs[0].model == "nonlinear"]


def lambdas(plan: Plan, layer: str = "0") -> set[tuple[float, ...]]:
    """Return the lambdas of the stacks of a layer."""
    return {runs[0].cells.lambdas for runs in models(plan) if runs[0].cells.groups[0].startswith(layer)}


def seeds(plan: Plan) -> list[list[int]]:
    """Return the seeds of the stacks of layer 0."""
    return [[run.cells.seed for run in runs] for runs in models(plan) if runs[0].cells.groups[0].startswith("0")]


def assert_each_cell_is_filled_once(plan: Plan) -> None:
    for solve in plan.solves:
        filled = sorted((each.layer_set, place) for each in solve.comparisons for place in each.in_grid.values())
        assert filled == list(product(range(len(solve.layer_sets)), range(len(plan.lambdas))))
        for each in solve.comparisons:
            trained = each.stage.parameters.cells.lambdas
            assert {trained[number]: plan.lambdas[place] for number, place in each.in_grid.items()} == {
                strength: strength for strength in trained if strength in plan.lambdas
            }


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ([1, 2, 4, 8], {(1, 2, 4), (8,)}),
        ([1, 2, 3, 4], {(1, 2, 4), (3,)}),
        ([0.5, 1, 2, 3, 4, 8, 9], {(1, 2, 4), (0.5, 3, 8), (9,)}),
        ([1, 4], {(1, 2, 4)}),
        ([3, 4, 8], {(1, 2, 4), (3, 8)}),
    ],
    ids=["end", "middle", "several", "dropped", "exchanged"],
)
def test_stacks_that_were_begun_stay(then: list[float], expected: set[tuple[float, ...]]):
    folder = Folder()
    before = folder.run(spec([1, 2, 4]))
    plan = folder.plan(spec(then))
    assert lambdas(plan) == expected
    assert identities(before) <= identities(plan)
    assert len(identities(plan)) == len(identities(before)) * len(expected)
    assert_each_cell_is_filled_once(plan)
    assert folder.plan(spec(then)).plan_id == plan.plan_id
    order = [stage.stage_id for stage in plan.stages]
    for position, stage in enumerate(plan.stages):
        assert {needed for _, needed in stage.needs()} <= set(order[:position])


def test_a_stack_of_which_nothing_was_begun_is_stacked_as_the_grid_says():
    folder = Folder()
    folder.run(spec([1, 2]), lambda stage: runs_of(stage)[0].parameters.cells.groups[0].startswith("0"))
    plan = folder.plan(spec([1, 4]))
    assert lambdas(plan, "0") == {(1, 2), (4,)}
    assert lambdas(plan, "1") == {(1, 4)}
    assert_each_cell_is_filled_once(plan)


def test_a_linearization_that_was_begun_keeps_its_stack():
    folder = Folder()
    folder.run(spec([1, 2]), lambda stage: runs_of(stage)[0].parameters.model == "linearized")
    assert lambdas(folder.plan(spec([1, 2, 4]))) == {(1, 2), (4,)}


def test_a_folder_that_trained_nothing_is_planned_as_a_new_one():
    folder = Folder()
    folder.run(spec([1, 2]), lambda _: False)
    then = spec([1, 2, 4])
    assert folder.plan(then).plan_id == fresh(then).plan_id
    assert [stage.stage_id for stage in folder.plan(then).stages] == [stage.stage_id for stage in fresh(then).stages]


def test_whatever_the_order_of_changes_what_was_begun_stays():
    folder = Folder()
    first = folder.run(spec([1, 2, 4]), lambda stage: runs_of(stage)[0].parameters.cells.groups[0].startswith("0"))
    second = folder.run(spec([1, 8]))  # layer 1: (1, 8)
    third = folder.run(spec([1, 2, 4]))  # layer 1: (1, 8), (2, 4)
    assert lambdas(second, "1") == {(1, 8)}
    assert lambdas(third, "1") == {(1, 8), (2, 4)}
    plan = folder.plan(spec([1, 2, 4, 8, 16]))
    assert lambdas(plan, "0") == {(1, 2, 4), (8,), (16,)}
    assert lambdas(plan, "1") == {(1, 8), (2, 4), (16,)}
    assert identities(second) | identities(third) <= identities(plan)
    assert lambdas(first, "0") == {(1, 2, 4)}
    assert_each_cell_is_filled_once(plan)


def test_training_that_is_left_out_for_a_while_is_found_again():
    folder = Folder()
    before = folder.run(spec([1, 2]))
    folder.run(spec([1, 2]) | {"finetune": None})
    assert identities(before) <= identities(folder.plan(spec([1, 2, 4])))


@pytest.mark.parametrize("axis", ["seeds", "learning_rates"])
def test_a_value_that_joins_a_stacked_axis_is_stacked_by_itself(axis: str):
    values: dict[str, Any] = {"grid__seeds": [0, 1], "grid__learning_rates": [0.05, 0.1]}
    more = values | {f"grid__{axis}": [*values[f"grid__{axis}"], 3] if axis == "seeds" else [0.05, 0.07, 0.1]}
    folder, size = Folder(), BOTH | {"stacked_cells": 16}
    before = folder.run(spec([1, 2], size, **values))
    plan = folder.plan(spec([1, 2, 4], size, **more))
    assert identities(before) <= identities(plan)
    assert_each_cell_is_filled_once(plan)
    members = {
        tuple((run.cells.training.learning_rate, run.cells.seed, run.cells.lambdas) for run in runs)
        for runs in models(plan)
    }
    new = (
        ((0.05, 3, (1, 2, 4)), (0.1, 3, (1, 2, 4))) if axis == "seeds" else ((0.07, 0, (1, 2, 4)), (0.07, 1, (1, 2, 4)))
    )
    old = tuple((rate, seed, (1, 2)) for rate in (0.05, 0.1) for seed in (0, 1))
    joined = tuple((rate, seed, (4,)) for rate in (0.05, 0.1) for seed in (0, 1))
    assert members == {old, joined, new}


def test_values_of_axes_that_no_stack_spans_change_none():
    folder = Folder()
    before = folder.run(spec([1, 2], grid__seeds=[0]))
    then = spec([1, 2], grid__seeds=[0, 1], grid__learning_rates=[0.05, 0.1])
    plan = folder.plan(then)
    assert plan.sweep.stacked_before == StackedBefore()
    assert identities(before, "finetune") < identities(plan, "finetune")


def test_seeds_that_join_in_another_order_leave_stacks_alone():
    folder = Folder()
    before = folder.run(spec([1], SEEDS, grid__seeds=[0, 1]))
    plan = folder.plan(spec([1], SEEDS, grid__seeds=[2, 1, 0]))
    assert seeds(plan) == [[2], [0, 1]] or sorted(seeds(plan)) == [[0, 1], [2]]
    assert identities(before) <= identities(plan)


def test_seeds_whose_stack_lost_another_are_stacked_anew():
    folder = Folder()
    before = folder.run(spec([1], SEEDS, grid__seeds=[0, 1, 2, 3, 4]))
    assert seeds(before) == [[0, 1, 2], [3, 4]]
    plan = folder.plan(spec([1], SEEDS, grid__seeds=[0, 1, 2, 3]))
    assert seeds(plan) == [[0, 1, 2], [3]]
    assert len(identities(before, "finetune") & identities(plan, "finetune")) == 2 * (1 + 4)


def test_another_memory_budget_leaves_stacks_alone():
    settings = SEEDS | {"stacked_cells": 8, "linearization": "products"}  # by rows only where these fit
    of_seeds, more = {"grid__seeds": [0, 1, 2, 3]}, {"grid__seeds": [0, 1, 2, 3, 4]}
    wide = fresh(spec([1, 2], settings, **of_seeds))
    assert seeds(wide) == [[0, 1, 2, 3]]
    several = [stage for stage in wide.stages if stage.of is FINETUNE and len(runs_of(stage)) > 1]
    together = min(wide.cost_of(stage).memory_bytes for stage in several)  # those of layer 0, which cache nothing
    folder = Folder()
    before = folder.run(spec([1, 2], settings, **of_seeds, compute__memory_budget=f"{together * 0.8:.0f}B"))
    assert seeds(before) == [[0, 1, 2], [3]]
    plan = folder.plan(spec([1, 2], settings, **more))
    assert seeds(plan) == [[0, 1, 2], [3], [4]]
    assert identities(before, "finetune") <= identities(plan, "finetune")


def test_tasks_whose_weights_are_combined_have_the_same_stacks():
    tasks: dict[str, Any] = {"a": {"data": "data.parquet"}, "b": {"data": "data.parquet", "n_eval": 5}}
    settings = SEEDS | {"combinations": {"coefficients": [0.5]}}

    def of(values: list[float], of_seeds: list[int]) -> dict[str, Any]:
        changes = spec(values, settings, grid__tasks=tasks, grid__seeds=of_seeds)
        return changes | {"task.data": None, "adapter.initialization": None}

    folder, of_one = Folder(), set[str]()
    for solve in folder.plan(of([1], [0, 1])).solves_of(0):
        of_one |= {each.stage.inputs["trained"][0][1] for each in solve.comparisons}
    folder.run(of([1], [0, 1]), lambda stage: stage.stage_id in of_one)
    plan = folder.plan(of([1, 2], [0, 1, 2]))
    assert_each_cell_is_filled_once(plan)
    assert of_one <= identities(plan)
    found = {(tuple(run.cells.seed for run in runs), runs[0].cells.lambdas) for runs in models(plan)}
    assert found == {((0, 1), (1,)), ((0, 1), (2,)), ((2,), (1, 2))}
    combined = [stage.parameters for stage in plan.stages if stage.kind == "combine"]
    assert len(combined) == 2 * 5  # layers; (seed, lambdas)
    assert all(each.a.cells.lambdas == each.b.cells.lambdas for each in combined)


def test_places_around_the_start_are_measured_once():
    settings = {"smoothness": {"radii": [0.1], "examples": 2}}
    folder = Folder()
    before = folder.run(spec([1, 2, 4], settings))
    plan = folder.plan(spec([0.5, 1, 2, 4], settings))
    assert identities(before, "smoothness") < identities(plan, "smoothness")
    radii = [stage.parameters.radii for stage in plan.stages if stage.kind == "smoothness"]
    assert sorted(radii) == [(), (), (0.1,), (0.1,)]


def test_stacks_of_another_size_do_not_count():
    folder = Folder()
    folder.run(spec([1, 2, 4]))
    folder.run(spec([1, 2, 4]) | {"finetune": None})
    plan = folder.plan(spec([1, 2, 4], {"stacked_cells": 2}))
    assert lambdas(plan) == {(1, 2), (4,)}
