"""The JSON Schema of the spec: it takes what `ntksweep plan` takes, and marks what cannot stand where it does."""

import json
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.spec.describe import starting_spec
from orchestrator.spec.schema import FILE_NAME, json_schema
from tests.orchestrator.sweeps import SPEC, changed, spec_of
from tests.root import ROOT

SCHEMA = jsonschema.Draft202012Validator(json.loads(json_schema()))


def wrong(spec: Any) -> list[str]:
    """Return what the schema finds wrong, and where."""
    return [f"{'.'.join(map(str, found.absolute_path))}: {found.message}" for found in SCHEMA.iter_errors(spec)]


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA.schema)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_it_takes_every_example(path: Any):
    written = yaml.safe_load(path.read_text())
    if "model" in written:  # the others are profiles of clusters
        assert wrong(written) == []


def test_it_takes_what_init_writes_and_what_a_results_folder_keeps():
    text = starting_spec("mine")
    assert text.splitlines()[0].endswith(f"$schema={FILE_NAME}")
    assert wrong(yaml.safe_load(text)) == []
    assert wrong(spec_of().model_dump(mode="json")) == []


def test_tasks_of_the_grid_may_take_from_the_section_and_the_section_may_be_left_out():
    of_grid = {"a": {"data": "a.csv"}, "b": {"data": "b.csv", "n_eval": 3}}
    assert wrong(changed(SPEC, {"grid.tasks": of_grid})) == []
    whole = {"a": SPEC["task"], "b": SPEC["task"]}
    without = changed(SPEC, {"grid.tasks": whole})
    del without["task"]
    assert wrong(without) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kernel.kinds": "sgd"}, "kinds"),
        ({"kernel.kind": "sgdd"}, "kernel.kind"),
        ({"compute.threads": 0}, "compute.threads"),
        ({"kernel.sigma": -1}, "kernel.sigma"),
        ({"compute.memory_budget": "much"}, "compute.memory_budget"),
        ({"grid.seeds": [-1]}, "grid.seeds.0"),
        ({"grid.tasks": {"a": {"dat": "a.csv"}}}, "grid.tasks"),
    ],
    ids=str,
)
def test_it_marks_what_cannot_stand_there(changes: dict[str, Any], said: str):
    assert any(said in found for found in wrong(changed(SPEC, changes)))


def test_without_tasks_in_the_grid_the_section_is_wanted_whole():
    without = changed(SPEC, {})
    del without["task"]
    assert any("task" in found for found in wrong(without))
    assert any("data" in found for found in wrong(changed(SPEC, {"task": {"kind": "classification"}})))
