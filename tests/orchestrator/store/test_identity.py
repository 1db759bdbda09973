"""Identities: equal exactly when the numbers are, whatever else changes."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.identity import ID_LENGTH, canonical_json, identity
from orchestrator.plan.plan import Plan
from orchestrator.stages import gram
from orchestrator.stages.base.cells import Solve, cell_ids
from orchestrator.stages.gram import GRAM
from orchestrator.stages.registry import KINDS
from orchestrator.stages.solve import SOLVE
from orchestrator.store.stage import Stage
from orchestrator.sweep.layer_sets import LayerSet
from tests.orchestrator.sweeps import groups_of, plan_of, sources_of, survey_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any) -> Any:
    """Return the same value with the keys of every mapping in the opposite order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


# --- canonical JSON


@given(JSON)
def test_canonical_json_reads_back_as_it_was(value: Any):
    # the text, unlike ==, tells 1 from 1.0 and -0.0 from 0.0
    assert repr(json.loads(canonical_json(value))) == repr(json.loads(json.dumps(value, sort_keys=True)))


@given(JSON)
def test_the_order_of_keys_does_not_matter(value: Any):
    assert canonical_json(shuffled(value)) == canonical_json(value)


@given(JSON, JSON)
def test_different_values_have_different_texts_and_identities(one: Any, other: Any):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical_json(one) == canonical_json(other)) is same
    assert (identity(one) == identity(other)) is same


@given(JSON)
def test_an_identity_is_a_short_name_for_a_file(value: Any):
    assert len(identity(value)) == ID_LENGTH
    assert set(identity(value)) <= set("0123456789abcdef")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_json_does_not_have_has_no_identity(number: float):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": [number]})
    with pytest.raises(TypeError):
        canonical_json({1, 2})


def test_canonical_json_is_what_it_was():
    # identities on disk depend on it: another text makes every finished artifact unknown
    value = {"b": [1, 1.0, 1e-06, None, True], "a": {"ü": "x y"}}
    assert canonical_json(value) == '{"a":{"ü":"x y"},"b":[1,1.0,1e-06,null,true]}'
    assert identity(value) == "533a25097d57fb4483e9f042"


# --- cells


@given(
    st.lists(st.sampled_from(["0.query", "1.ä", 'a"b', "head"]), min_size=1, unique=True),
    st.lists(st.floats(min_value=1e-300, max_value=1e300), min_size=1, max_size=5),
    st.sampled_from(["absolute", "trace"]),
)
def test_a_cell_is_the_hash_of_the_canonical_json_of_what_fixes_it(groups: list[str], lambdas: list[float], scale: str):
    layer_set = LayerSet("any name", tuple(groups), (0,), 1)
    solve = Solve(
        stage=Stage(SOLVE, {}), variant=0, seed=0, n_train=5, layer_sets=(layer_set,), problem_id=identity("a problem")
    )
    expected = [
        identity({"problem": identity("a problem"), "groups": groups, "lambda": strength, "scale": scale})
        for strength in lambdas
    ]
    assert cell_ids(solve, layer_set, lambdas, scale) == expected


Cell = tuple[int, int, str, float]


def cells(plan: Plan) -> dict[Cell, str]:
    """Return the identity of every cell, by its place on the grid."""
    scale = plan.sweep.spec.grid.lambdas.scale
    return {
        (solve.seed, solve.n_train, layer_set.name, strength): cell
        for solve in plan.solves
        for layer_set in solve.layer_sets
        for strength, cell in zip(plan.lambdas, cell_ids(solve, layer_set, plan.lambdas, scale), strict=True)
    }


def stage_ids(plan: Plan) -> set[str]:
    return {stage.stage_id for stage in plan.stages}


def shared_ids(plan: Plan) -> set[str]:
    """Return the identities of the stages below the decompositions."""
    return {stage.stage_id for stage in plan.stages if stage.kind != "solve"}


def test_no_two_cells_of_a_grid_are_the_same():
    changes = {"grid.seeds": [0, 1, 2], "grid.n_train": [5, 10], "grid.layer_sets": ["each_layer", "each_target"]}
    plan = plan_of(changes)
    found = cells(plan)
    assert len(found) == plan.n_cells == 3 * 2 * 4 * 2
    assert len(set(found.values())) == len(found)


# --- the grid grows and shrinks

LARGE = {
    "grid.lambdas": {"values": [0.01, 0.1, 1.0], "scale": "trace"},
    "grid.layer_sets": ["each_layer", "all_layers", "each_target"],
    "grid.seeds": [0, 1, 7],
    "grid.n_train": [6, 10],
}


@pytest.mark.parametrize(
    "removed",
    [
        {"grid.lambdas": {"values": [0.1], "scale": "trace"}},
        {"grid.lambdas": {"values": [1.0, 0.01], "scale": "trace"}},
        {"grid.layer_sets": ["all_layers"]},
        {"grid.layer_sets": ["each_target", "each_layer"]},
        {"grid.seeds": [7]},
        {"grid.seeds": [1, 0]},
        {"grid.n_train": [10]},
        {"grid.n_train": [10, 6]},
        {"grid.seeds": [1], "grid.layer_sets": ["each_target"], "grid.n_train": [10]},
    ],
    ids=str,
)
def test_values_of_the_grid_come_and_go_without_touching_other_cells(removed: dict[str, Any]):
    large, small = cells(plan_of(LARGE)), cells(plan_of(LARGE | removed))
    assert small.keys() <= large.keys()
    assert small == {place: large[place] for place in small}


@pytest.mark.parametrize(
    "removed",
    [
        {"grid.lambdas": {"values": [0.1], "scale": "absolute"}},
        {"grid.layer_sets": ["all_layers"]},
        {"grid.seeds": [7]},
        {"grid.n_train": [10]},
    ],
    ids=str,
)
def test_values_of_the_grid_come_and_go_without_touching_captures_and_tiles(removed: dict[str, Any]):
    assert shared_ids(plan_of(LARGE | removed)) <= shared_ids(plan_of(LARGE))


@pytest.mark.parametrize(
    "removed", [{"grid.layer_sets": ["all_layers"]}, {"grid.seeds": [7]}, {"grid.n_train": [10]}], ids=str
)
def test_a_decomposition_stays_when_other_sets_seeds_and_sizes_come(removed: dict[str, Any]):
    assert stage_ids(plan_of(LARGE | removed)) <= stage_ids(plan_of(LARGE))


# --- what is part of a cell, and what is not


@pytest.mark.parametrize(
    "change",
    [
        {"compute.workers": 7},
        {"compute.executor": "ray"},
        {"compute.memory_budget": "1GB"},
        {"results.folder": "elsewhere"},
        {"name": "other"},
        {"model.path": "moved/model"},
        {"task.data": "moved/data.parquet"},
        {"model.trust_remote_code": True},
    ],
    ids=str,
)
def test_where_and_how_it_runs_is_no_part_of_an_identity(change: dict[str, Any]):
    assert cells(plan_of(change)) == cells(plan_of())
    assert [stage.stage_id for stage in plan_of(change).stages] == [stage.stage_id for stage in plan_of().stages]


def test_the_place_of_model_and_data_is_no_part_of_an_identity():
    moved = plan_of(sources=sources_of("/elsewhere/model", "/elsewhere/data.parquet"))
    assert cells(moved) == cells(plan_of())
    assert stage_ids(moved) == stage_ids(plan_of())
    assert moved.plan_id == plan_of().plan_id


def test_writing_predictions_is_no_part_of_a_cell():
    assert cells(plan_of({"results.predictions": True})) == cells(plan_of())


@pytest.mark.parametrize(
    "change",
    [
        {"model.dtype": "float32"},
        {"model.attention": "eager"},
        {"task.max_length": 17},
        {"task.template": "{text} It was"},
        {"task.label": "rating"},
        {"task.text": "sentence"},
        {"task.text_pair": "second"},
        {"task.config": "sst2"},
        {"task.train_split": "test"},
        {"task.eval_split": "test"},
        {"task.sign_cut": 0.5},
        {"task.sampling": "balanced"},
        {"task.sampling": "first"},
        {"task.sample_seed": 3},
        {"task.n_eval": 7},
        {"adapter.rank": 3},
        {"adapter.lora_alpha": 3.0},
        {"adapter.kind": "none"},
        {"adapter.initialization": "random"},
        {"adapter.target_modules": ["query"]},
        {"adapter.seed": 3},
        {"head.kind": "pretrained"},
        {"head.kind": "ridge"},
        {"head.seed": 3},
        {"kernel.kind": "sign"},
        {"kernel.kind": "asymmetric_sign"},
        {"kernel.outputs": "trace"},
        {"kernel.sigma": 0.1},
        {"kernel.relative_sigma": 0.1},
        {"kernel.eigenvectors": True},
        {"grid.lambdas.scale": "absolute"},
        {"compute.threads": 2},
        {"compute.batch_tokens": 64},
        {"compute.gram_dtype": "float32"},
        {"compute.shard_examples": 5},
    ],
    ids=str,
)
def test_whatever_changes_numbers_changes_every_cell(change: dict[str, Any]):
    before, after = cells(plan_of()), cells(plan_of(change))
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())


def test_a_fitted_heads_penalty_changes_every_cell():
    before, after = (cells(plan_of({"head.kind": "ridge", "head.l2_penalty": penalty})) for penalty in (1.0, 2.0))
    assert not set(before.values()) & set(after.values())


@pytest.mark.parametrize("changed", ["model", "data"])
def test_other_content_of_model_or_data_changes_every_cell_and_stage(changed: str):
    other = sources_of(content="b")
    plan = plan_of(sources=replace(sources_of(), **{changed: getattr(other, changed)}))
    assert not set(cells(plan).values()) & set(cells(plan_of()).values())
    assert not stage_ids(plan) & stage_ids(plan_of())


def test_another_number_of_classes_changes_every_cell():
    other = plan_of(survey=survey_of(n_outputs=3))
    assert not set(cells(other).values()) & set(cells(plan_of()).values())


def test_seeds_of_their_own_make_the_seed_of_the_grid_no_matter():
    fixed = {"task.sample_seed": 1, "adapter.seed": 2, "head.seed": 3}
    zero, five = (plan_of(fixed | {"grid.seeds": [seed]}).solves[0] for seed in (0, 5))
    assert (zero.seed, five.seed) == (0, 5)
    assert zero.problem_id == five.problem_id


# --- stages


def test_a_stage_is_its_kind_its_parameters_and_its_inputs():
    base = Stage(GRAM, {"a": 1, "b": 2}, {"left": (("capture", "x"),), "right": (("capture", "y"),)})
    same = Stage(GRAM, {"b": 2, "a": 1}, {"right": (("capture", "y"),), "left": (("capture", "x"),)})
    assert base.stage_id == same.stage_id
    others = [
        Stage(SOLVE, base.parameters, base.inputs),
        Stage(GRAM, {"a": 1, "b": 3}, base.inputs),
        Stage(GRAM, base.parameters, {"left": (("capture", "y"),), "right": (("capture", "x"),)}),
        Stage(GRAM, base.parameters, {"left": (("capture", "x"), ("capture", "y"))}),
        Stage(GRAM, base.parameters),
    ]
    assert len({base.stage_id, *(stage.stage_id for stage in others)}) == 1 + len(others)


def test_raising_a_numerics_version_makes_new_stages_of_that_kind_and_of_those_that_read_them(
    monkeypatch: pytest.MonkeyPatch,
):
    before = {kind: {s.stage_id for s in plan_of().stages if s.kind == kind} for kind in KINDS}
    monkeypatch.setattr(gram, "GRAM", replace(GRAM, version=GRAM.version + 1))
    after = {kind: {s.stage_id for s in plan_of().stages if s.kind == kind} for kind in KINDS}
    assert after["capture"] == before["capture"]
    assert not after["gram"] & before["gram"]
    assert not after["solve"] & before["solve"]


def test_captures_do_not_depend_on_groups_that_no_layer_set_needs():
    few = plan_of({"grid.layer_sets": [{"groups": [["0.query"]]}]}, survey=survey_of())
    more = plan_of(
        {"grid.layer_sets": [{"groups": [["0.query"]]}]}, survey=survey_of(groups=groups_of(4, ("query", "value")))
    )
    assert shared_ids(few) == shared_ids(more)
