"""The plan: each shared piece of work once, and none that no cell needs."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.sampling import sample
from finetune.data.task import Examples, Pool
from orchestrator.errors import SpecError
from orchestrator.plan.plan import Plan
from orchestrator.stages.solve.planning import MANY_LAYER_SETS
from orchestrator.store.stage import Stage
from orchestrator.sweep.layer_sets import GroupFacts
from tests.orchestrator.sweeps import groups_of, plan_of, survey_of

SMALL_SHARDS = {"compute.shard_examples": 4, "task.n_eval": 6, "grid.n_train": [10]}
"""Three train shards, two evaluation shards."""


def wide(layers: int = 2) -> Any:
    """Groups with more parameters than any kernel here has rows, so that every layer set is solved by its kernel."""
    return survey_of(groups=groups_of(layers, ("query", "value"), n_parameters=10_000))


def of_kind(plan: Plan, kind: str) -> list[Stage]:
    return [stage for stage in plan.stages if stage.kind == kind]


def counts(plan: Plan) -> Counter[str]:
    return Counter(stage.kind for stage in plan.stages)


def shard_ranges(plan: Plan, split: str) -> list[tuple[int, int]]:
    captures = [stage.parameters for stage in of_kind(plan, "capture")]
    return [(p.start, p.stop) for p in captures if p.split == split]


def tile_pairs(plan: Plan) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """Return (split, first example) of both sides of every tile."""
    places = {s.stage_id: (s.parameters.split, s.parameters.start) for s in of_kind(plan, "capture")}
    return [(places[tile.inputs["left"][0][1]], places[tile.inputs["right"][0][1]]) for tile in of_kind(plan, "gram")]


# --- shared stages


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
    st.lists(st.integers(1, 12), min_size=1, max_size=3),
    st.sampled_from(["sgd", "sign", "asymmetric_sign"]),
    st.sampled_from(["full", "trace", "margin"]),
    st.integers(1, 9),
    st.sampled_from([1, 40, 10_000]),
)
def test_every_stage_stands_once_and_after_what_it_needs(
    seeds: list[int], n_train: list[int], kind: str, outputs: str, shard: int, n_parameters: int
):
    plan = plan_of(
        {
            "grid.seeds": seeds,
            "grid.n_train": n_train,
            "kernel.kind": kind,
            "kernel.outputs": outputs,
            "compute.shard_examples": shard,
            "grid.layer_sets": ["each_layer", "each_target", "all_layers"],
        },
        survey=survey_of(groups=groups_of(2, ("query", "value"), n_parameters=n_parameters)),
    )
    seen: set[tuple[str, str]] = set()
    for stage in plan.stages:
        assert stage.needs() <= seen
        assert (stage.kind, stage.stage_id) not in seen
        seen.add((stage.kind, stage.stage_id))
    # whatever is planned, some solve needs it
    needed = {("solve", solve.stage.stage_id) for solve in plan.solves}
    for stage in reversed(plan.stages):
        assert (stage.kind, stage.stage_id) in needed
        needed |= stage.needs()
    n_cells = 5 * len(plan.lambdas) * len(set(seeds)) * len(set(n_train))
    assert plan.n_cells == n_cells


def test_layer_sets_and_lambdas_share_captures_and_tiles():
    few = plan_of(SMALL_SHARDS | {"grid.layer_sets": ["all_layers"]}, survey=wide(4))
    many = plan_of(
        SMALL_SHARDS
        | {"grid.layer_sets": [{"subsets": 4}], "grid.lambdas": {"values": [0.1 * i for i in range(1, 50)]}},
        survey=wide(4),
    )
    assert len(many.variants[0].layer_sets) == 15
    for kind in ("dataset", "capture", "gram"):
        assert [s.stage_id for s in of_kind(few, kind)] == [s.stage_id for s in of_kind(many, kind)]
    assert counts(many)["solve"] == 15
    assert many.n_cells == 15 * 49


def test_training_set_sizes_share_captures_and_tiles():
    one = plan_of(SMALL_SHARDS, survey=wide())
    three = plan_of(SMALL_SHARDS | {"grid.n_train": [3, 7, 10]}, survey=wide())
    for kind in ("dataset", "capture", "gram"):
        assert [s.stage_id for s in of_kind(one, kind)] == [s.stage_id for s in of_kind(three, kind)]


def test_repeated_values_of_the_grid_count_once():
    once = plan_of({"grid.seeds": [3], "grid.n_train": [10]})
    again = plan_of(
        {"grid.seeds": [3, 3], "grid.n_train": [10, 10], "grid.layer_sets": ["each_layer", "all_layers"] * 2}
    )
    assert [stage.stage_id for stage in again.stages] == [stage.stage_id for stage in once.stages]
    assert again.plan_id == once.plan_id


def test_a_fitted_head_is_fitted_once_a_seed():
    assert counts(plan_of({"head.kind": "ridge", "grid.seeds": [0, 1]}))["head"] == 2
    assert counts(plan_of({"head.kind": "random", "grid.seeds": [0, 1]}))["head"] == 0


@pytest.mark.parametrize("outputs", ["full", "trace", "margin"])
def test_many_layer_sets_share_solve_stages_without_losing_one(outputs: str):
    plan = plan_of({"grid.layer_sets": [{"subsets": 3}], "kernel.outputs": outputs}, survey=wide(20))
    assert len(plan.variants[0].layer_sets) == 20 + 190 + 1140 > MANY_LAYER_SETS
    assert len(plan.solves) <= MANY_LAYER_SETS
    assert [s for solve in plan.solves for s in solve.layer_sets] == list(plan.variants[0].layer_sets)


# --- shards


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50))
def test_shards_cover_every_example_once(n_train: int, n_eval: int, shard: int):
    plan = plan_of({"grid.n_train": [n_train], "task.n_eval": n_eval, "compute.shard_examples": shard})
    for split, n in (("train", n_train), ("eval", n_eval)):
        ranges = shard_ranges(plan, split)
        assert ranges[0][0] == 0
        assert ranges[-1][1] == n
        assert all(before[1] == after[0] for before, after in pairwise(ranges))
        assert all(0 < stop - start <= shard for start, stop in ranges)


@given(st.sampled_from(["1MB", "10MB", "100MB", "1GB"]), st.integers(1, 1_000_000))
def test_automatic_shards_take_a_share_of_the_budget_whatever_the_workers(budget: str, n_parameters: int):
    changes = {"compute.memory_budget": budget, "compute.shard_examples": None}
    survey = survey_of(groups=groups_of(2, ("query", "value"), n_parameters=n_parameters))
    sizes = plan_of(changes, survey=survey).variants[0].sizes
    shard = sizes.shard_examples
    assert shard & (shard - 1) == 0
    bytes_of_example = sizes.rows_per_example * sizes.n_parameters * sizes.row_bytes
    assert shard == 1 or 4 * shard * bytes_of_example <= plan_of(changes).sweep.spec.compute.memory_budget
    assert plan_of(changes | {"compute.workers": 5}, survey=survey).variants[0].sizes == sizes


# --- only what is needed


def test_only_groups_that_a_layer_set_needs_are_captured():
    plan = plan_of({"grid.layer_sets": [{"groups": [["1.value"]]}], "head.in_kernel": False}, survey=wide())
    assert plan.variants[0].sizes.groups == ("1.value",)
    assert all(stage.parameters.rows.groups == ("1.value",) for stage in of_kind(plan, "capture"))
    assert all(stage.parameters.blocks == (("1.value",),) for stage in of_kind(plan, "gram"))


def test_a_symmetric_kernel_has_tiles_on_and_below_the_diagonal_alone():
    train, evaluation = [("train", 0), ("train", 4), ("train", 8)], [("eval", 0), ("eval", 4)]
    pairs = tile_pairs(plan_of(SMALL_SHARDS, survey=wide()))
    assert [pair for pair in pairs if pair[0][0] == "train"] == [
        (left, right) for row, left in enumerate(train) for right in train[: row + 1]
    ]
    assert [pair for pair in pairs if pair[0][0] == "eval"] == [(left, right) for left in evaluation for right in train]


def test_an_asymmetric_kernel_has_the_tiles_of_all_pairs():
    pairs = tile_pairs(plan_of(SMALL_SHARDS | {"kernel.kind": "asymmetric_sign"}, survey=wide()))
    assert len(set(pairs)) == len(pairs) == 3 * 3 + 2 * 3
    assert all(right[0] == "train" for _, right in pairs)


def test_layer_sets_with_fewer_parameters_than_rows_need_no_tiles():
    small = survey_of(groups=groups_of(2, ("query", "value"), n_parameters=3, head=False))
    plan = plan_of(SMALL_SHARDS | {"head.in_kernel": False}, survey=small)
    assert {solve.stage.parameters.method for solve in plan.solves} == {"primal"}
    assert counts(plan)["gram"] == 0
    assert plan.variants[0].sizes.dual_groups == ()


def test_the_method_turns_where_parameters_and_rows_are_as_many():
    groups = [GroupFacts("0.a", 0, "a", 19), GroupFacts("1.a", 1, "a", 20), GroupFacts("2.a", 2, "a", 21)]
    plan = plan_of(
        SMALL_SHARDS | {"grid.layer_sets": ["each_layer"], "head.in_kernel": False}, survey=survey_of(groups=groups)
    )
    # ten examples with two outputs: twenty rows
    methods = {s.name: solve.stage.parameters.method for solve in plan.solves for s in solve.layer_sets}
    assert methods == {"layers:0": "primal", "layers:1": "dual", "layers:2": "dual"}
    assert plan.variants[0].sizes.dual_groups == ("1.a", "2.a")


def test_the_trace_averaged_kernel_counts_a_parameter_once_an_output():
    groups = [GroupFacts("0.a", 0, "a", 4), GroupFacts("1.a", 1, "a", 5)]
    changes = {"grid.layer_sets": ["each_layer"], "head.in_kernel": False, "kernel.outputs": "trace"}
    plan = plan_of(SMALL_SHARDS | changes, survey=survey_of(groups=groups))
    # ten rows; eight and ten features
    methods = {s.name: solve.stage.parameters.method for solve in plan.solves for s in solve.layer_sets}
    assert methods == {"layers:0": "primal", "layers:1": "dual"}


def test_an_asymmetric_kernel_has_no_primal_form():
    small = survey_of(groups=groups_of(2, ("query", "value"), n_parameters=1, head=False))
    plan = plan_of({"kernel.kind": "asymmetric_sign", "head.in_kernel": False}, survey=small)
    assert {solve.stage.parameters.method for solve in plan.solves} == {"dual"}


def test_sizes_that_are_solved_by_their_parameters_need_no_tiles_of_their_own():
    groups = groups_of(2, ("query",), n_parameters=12, head=False)
    changes = {"head.in_kernel": False, "grid.layer_sets": ["each_layer"], "grid.n_train": [5, 40]}
    plan = plan_of(SMALL_SHARDS | changes, survey=survey_of(groups=groups))
    # five examples give ten rows, forty give eighty: only the first two shards meet in tiles
    starts = {place[1] for pair in tile_pairs(plan) for place in pair if place[0] == "train"}
    assert starts == {0, 4}
    assert shard_ranges(plan, "train")[-1] == (36, 40)


def test_a_smaller_training_set_reads_only_its_own_shards():
    plan = plan_of(SMALL_SHARDS | {"grid.n_train": [4, 5, 10], "grid.layer_sets": ["all_layers"]}, survey=wide())
    by_size = {solve.n_train: solve.stage.inputs for solve in plan.solves}
    assert {n: len(inputs["tiles"]) for n, inputs in by_size.items()} == {4: 1, 5: 3, 10: 6}
    assert {n: len(inputs["eval_tiles"]) for n, inputs in by_size.items()} == {4: 2, 5: 4, 10: 6}
    assert by_size[4]["tiles"] == by_size[10]["tiles"][:1]
    assert set(by_size[5]["tiles"]) < set(by_size[10]["tiles"])


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 10), st.integers(0, 5), st.booleans())
def test_a_smaller_training_set_is_the_beginning_of_a_larger_one(
    one: int, other: int, n_eval: int, seed: int, own: bool
):
    import numpy as np

    pool = Pool([""] * 40, None, np.zeros(40, np.int64), np.arange(40))
    evaluation = Pool([""] * 40, None, np.zeros(40, np.int64), np.arange(40)) if own else pool
    examples = Examples(pool, evaluation, 2)
    small, large = sorted((one, other))
    first, second = (sample(examples, n_train=n, n_eval=n_eval, seed=seed) for n in (small, large))
    assert first.train.tolist() == second.train[:small].tolist()
    assert first.evaluation.tolist() == second.evaluation.tolist()
    if not own:
        assert not set(second.train.tolist()) & set(second.evaluation.tolist())


# --- what the model or the data do not have


@pytest.mark.parametrize(
    ("pool", "shared", "fits"), [(16, True, True), (15, True, False), (10, False, True), (9, False, False)]
)
def test_too_few_examples_are_told_with_how_many_there_are(pool: int, shared: bool, fits: bool):
    survey = survey_of(pool=pool, shared_pool=shared)
    if fits:
        plan_of(survey=survey)
        return
    with pytest.raises(SpecError, match=rf"n_train 10 and task.n_eval 6 need more than the {pool} .*; lower"):
        plan_of(survey=survey)


def test_the_largest_training_set_counts():
    with pytest.raises(SpecError, match=r"grid.n_train 500 and task.n_eval 6"):
        plan_of({"grid.n_train": [10, 500, 20]}, survey=survey_of(pool=100))


def test_balanced_training_sets_are_multiples_of_the_number_of_classes():
    three = replace(survey_of(n_outputs=3), class_sizes=(30, 30, 30))
    plan_of({"task.sampling": "balanced", "grid.n_train": [9, 12]}, survey=three)
    with pytest.raises(SpecError, match=r"grid.n_train: .* must be a multiple of 3, not 10; take 9 or 12"):
        plan_of({"task.sampling": "balanced", "grid.n_train": [9, 10]}, survey=three)


def test_a_class_with_too_few_examples_is_told_before_anything_runs():
    skewed = replace(survey_of(), class_sizes=(90, 4))
    plan_of({"task.sampling": "balanced", "grid.n_train": [8]}, survey=skewed)
    plan_of({"grid.n_train": [10]}, survey=skewed)
    with pytest.raises(SpecError, match=r"too few examples of class 1: .*n_train 10 need 5, and there are 4"):
        plan_of({"task.sampling": "balanced", "grid.n_train": [8, 10]}, survey=skewed)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_margin_needs_two_classes(classes: int):
    with pytest.raises(SpecError, match=rf"margin needs two classes; the data has {classes}: use full or trace"):
        plan_of({"kernel.outputs": "margin"}, survey=survey_of(n_outputs=classes))


def test_label_words_are_one_a_class():
    head = {"kind": "label_words", "words": ["bad", "good"], "in_kernel": False}
    with pytest.raises(SpecError, match=r"head.words: give 3 words, one a class; there are 2"):
        plan_of({"head": head}, survey=survey_of(n_outputs=3, groups=groups_of(2, ("query",), head=False)))
