"""Descriptions of the spec: the spec to start from, the meanings of its keys, the reference page."""

import re
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from orchestrator.spec import Spec, parse_spec
from orchestrator.spec.describe import reference_page, starting_spec
from orchestrator.spec.grid_section import (
    ExplicitGroups,
    ExplicitLayers,
    LambdaSection,
    SubsetsUpTo,
)
from orchestrator.spec.listed import FlowTimesSection, Logspace
from tests.orchestrator.spec.keys import KEYS, SECTIONS
from tests.root import ROOT

PARTS: list[type[BaseModel]] = [Spec, *SECTIONS.values(), SubsetsUpTo, ExplicitLayers, ExplicitGroups]


def test_the_starting_spec_is_a_valid_spec_with_every_default():
    spec = parse_spec(starting_spec("begin"))
    assert spec.name == "begin"
    required = {"name": "begin", "model": {"path": spec.model.path}}
    required["task"] = {key: getattr(spec.task, key) for key in ("data", "kind", "n_eval")}
    required["adapter"] = {"target_modules": spec.adapter.target_modules}
    required["grid"] = {key: getattr(spec.grid, key) for key in ("lambdas", "layer_sets", "n_train")}
    assert spec == Spec.model_validate(required)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True))
def test_the_starting_spec_has_the_name_that_was_given(name: str):
    assert parse_spec(starting_spec(name)).name == name


@pytest.mark.parametrize("name", ["2024", "no", "1e5", "null", "1.0", "0x1f", "2024-01-01"])
def test_a_name_that_yaml_would_read_as_something_else_stays_a_name(name: str):
    assert parse_spec(starting_spec(name)).name == name


def test_the_starting_spec_explains_every_key():
    text = starting_spec("begin")
    for section, key in KEYS:
        if "." not in section:
            assert re.search(rf"(?m)^(# )?  (# )?{key}: ", text), f"{section}.{key}"


def test_a_key_of_the_starting_spec_that_is_commented_out_is_valid_when_it_is_not():
    lines = starting_spec("begin").splitlines()
    optional = [position for position, line in enumerate(lines) if re.match(r"  # [a-z_]+: \S", line)]
    known = {key for _, key in KEYS}
    tried = 0
    for position in optional:
        key = lines[position].split()[1].rstrip(":")
        # words need another head, learning rates a section `finetune`, times eigenvectors
        if key not in known or key in ("words", "learning_rates", "flow_times"):
            continue
        parse_spec("\n".join([*lines[:position], lines[position].replace("# ", "", 1), *lines[position + 1 :]]))
        tried += 1
    assert tried >= 8


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_field_has_a_meaning_and_an_example_that_is_valid(part: type[BaseModel]):
    for key, field in part.model_fields.items():
        assert field.description, key
        if part is Spec and key in SECTIONS:
            continue  # a section has its own keys
        assert field.examples, key
        for example in field.examples:
            TypeAdapter(Annotated[(field.annotation, None, *field.metadata)]).validate_python(example)


def test_the_reference_page_covers_every_field():
    page = reference_page()
    sections = re.split(r"(?m)^## ", page)
    for name, model in SECTIONS.items():
        if "." in name:
            continue
        (section,) = (text for text in sections if text.startswith(f"`{name}`"))
        rows = re.findall(r"(?m)^\| `(\w+)` \| (.+) \| (.+) \| `(.+)` \|$", section)
        assert [row[0] for row in rows] == list(model.model_fields)
        for key, meaning, default, example in rows:
            assert meaning, key
            assert default, key
            assert example not in ("", "?"), key
    (parts,) = (text for text in sections if text.startswith("Parts of `grid`"))
    for part in (LambdaSection, FlowTimesSection, Logspace, SubsetsUpTo, ExplicitLayers, ExplicitGroups):
        for key in part.model_fields:
            assert f"| `{key}` |" in parts, f"{part.__name__}.{key}"


def test_the_reference_page_in_the_documentation_is_the_current_one():
    page = ROOT / "docs" / "spec.md"
    assert page.read_text(encoding="utf-8") == reference_page(), "run `python docs/write_reference.py`"
