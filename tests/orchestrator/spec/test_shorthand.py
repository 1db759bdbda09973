"""Shorter ways of writing a spec: each gives the sweep of the longer one, and what may mean two things is refused."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.documents import faults
from orchestrator.errors import SpecError
from orchestrator.spec import parse_spec
from orchestrator.spec.schema import json_schema
from tests.orchestrator.sweeps import SPEC, changed, plan_of, spec_of, survey_of

LONGER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"grid.n_train": 20}, {"grid.n_train": [20]}),
    ({"grid.layer_sets": "each_layer"}, {"grid.layer_sets": ["each_layer"]}),
    ({"grid.layer_sets": {"layers": [0, 1]}}, {"grid.layer_sets": [{"layers": [[0, 1]]}]}),
    ({"grid.layer_sets": [{"layers": 1}, "all_layers"]}, {"grid.layer_sets": [{"layers": [[1]]}, "all_layers"]}),
    ({"grid.layer_sets": {"groups": ["0.query", "head"]}}, {"grid.layer_sets": [{"groups": [["0.query", "head"]]}]}),
    ({"grid.lambdas": [0.1, 1]}, {"grid.lambdas": {"values": [0.1, 1]}}),
    ({"grid.lambdas": 0.1}, {"grid.lambdas": {"values": [0.1]}}),
    ({"grid.lambdas": {"values": 0.1, "scale": "trace"}}, {"grid.lambdas": {"values": [0.1], "scale": "trace"}}),
    ({"grid.ranks": 4}, {"grid.ranks": [4]}),
    ({"adapter.target_modules": "query"}, {"adapter.target_modules": ["query"]}),
    ({"adapter.target_modules": None, "adapter.targets": "query"}, {"adapter.target_modules": ["query"]}),
    ({"task.labels": ["no", "yes"]}, {"task.labels": {"no": 0, "yes": 1}}),
    ({"task.labels": {"b": 1, "c": None, "a": 0}}, {"task.labels": {"a": 0, "b": 1, "c": None}}),
    ({"task.labels": {"1.0": 1, "True": 0}}, {"task.labels": {"true": 0, "1": 1}}),
]  # fmt: skip

SCHEMA = jsonschema.Draft202012Validator(json.loads(json_schema()))


@pytest.mark.parametrize(("shorter", "longer"), LONGER, ids=lambda changes: str(changes)[:50])
def test_a_shorter_way_gives_the_same_sweep(shorter: dict[str, Any], longer: dict[str, Any]):
    assert spec_of(shorter).model_dump_json() == spec_of(longer).model_dump_json()
    short, long = plan_of(shorter), plan_of(longer)
    assert [stage.stage_id for stage in short.stages] == [stage.stage_id for stage in long.stages]
    assert short.plan_id == long.plan_id


def test_a_map_that_says_what_the_data_say_gives_the_same_stages():
    survey = replace(survey_of(), labels=(("no", 0), ("yes", 1)))
    plans = [
        plan_of(changes, survey=survey) for changes in ({}, {"task.labels": {"yes": 1, "no": 0}, "task.classes": 2})
    ]
    assert [stage.stage_id for stage in plans[0].stages] == [stage.stage_id for stage in plans[1].stages]
    other = plan_of({}, survey=replace(survey, labels=(("yes", 0), ("no", 1))))
    assert other.stages[0].stage_id != plans[0].stages[0].stage_id


@pytest.mark.parametrize(("shorter", "longer"), LONGER, ids=lambda changes: str(changes)[:50])
def test_editors_take_both(shorter: dict[str, Any], longer: dict[str, Any]):
    for changes in (shorter, longer):
        assert not list(SCHEMA.iter_errors(changed(SPEC, changes)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid.seeds": 3}, "grid.seeds: `3` may be a seed or a number of seeds: write [3] for the seed 3, or "
         "[0, 1, 2] for 3 seeds"),
        ({"grid.seeds": 12}, "[0, 1, 2, 3, 4, ...] for 12 seeds"),
        ({"grid.layer_sets": [[0, 1]]}, "write {layers: [[0, 1]]}, for all sets of up to k layers {subsets: k}"),
        ({"grid.layer_sets": 3}, "3 may be a set of layers or a number of them"),
        ({"grid.layer_sets": {"layers": [0, [1]]}}, "mixed in [0, [1]]: write [[0], [1]] for one set each"),
        ({"adapter.targets": "query"}, "`targets` is another name of `target_modules`: remove one of them"),
        ({"task.labels": {"a": 0, "b": 2}}, "labels have no label of class 1"),
        ({"task.labels": {"a": 0, "b": 0}}, "labels have one class"),
        ({"task.labels": {"1": 0, "1.0": 1}}, "labels name `1` twice"),
        ({"task.labels": ["a", "a"]}, "the list names a label twice"),
        ({"task.labels": {"a": 0, "b": 1}, "task.classes": 3}, "labels name 2 classes, and classes says 3"),
        ({"task.labels": {"a": 0, "b": 1}, "task.sign_cut": 0}, "labels and sign_cut both make classes"),
        ({"task.labels": {"a": 0, "b": 1}, "task.kind": "regression"}, "labels are of classes"),
    ],
)  # fmt: skip
def test_what_may_mean_two_things_is_refused_with_what_to_write(changes: dict[str, Any], said: str):
    with pytest.raises(SpecError) as refused:
        parse_spec(yaml.safe_dump(changed(SPEC, changes)))
    assert said in str(refused.value)


WRONG = (
    3,
    2.5,
    True,
    None,
    "some text",
    [],
    [[]],
    {},
    {"a": 1},
    [None],
    ["x", 1],
    -1,
    10**30,
    "",
    "1e400",
    [{"a": []}],
)


SECTIONS = ("model", "task", "adapter", "head", "kernel", "grid", "compute", "results", "finetune", "sharding")


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_no_message_is_in_the_words_of_a_library(value: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faults, "MOST_FAULTS", 1000)
    keys = {section: SCHEMA.schema["$defs"][f"{section.capitalize()}Section"]["properties"] for section in SECTIONS}
    keys["adapter"] = {key: None for key in keys["adapter"] if key != "targets"}
    spoilt = {section: dict.fromkeys(of_section, value) for section, of_section in keys.items()}
    for tree in ({"name": value} | spoilt, dict.fromkeys(["name", *SECTIONS], value)):
        with pytest.raises(SpecError) as refused:
            parse_spec(yaml.safe_dump(tree))
        lines = str(refused.value).splitlines()
        assert len(lines) > 5
        words = ("Input should", "valid string", "valid integer", "pydantic", "type=", faults.LAST_RESORT)
        assert not [line for line in lines for word in words if word in line]
