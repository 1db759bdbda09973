"""The spec described from its own model: a commented spec to start from, and the reference page of all keys."""

import textwrap
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from orchestrator.documents.writing import to_yaml
from orchestrator.spec.bounds import bounds_of
from orchestrator.spec.grid_section import ExplicitGroups, ExplicitLayers, LambdaSection, SubsetsUpTo
from orchestrator.spec.listed import FlowTimesSection, Logspace
from orchestrator.spec.model import Spec
from orchestrator.spec.schema import schema_comment
from orchestrator.spec.section import Section

WIDTH = 100


def starting_spec(name: str) -> str:
    """Return a valid spec, called `name`, with every key, its meaning and its default; unset keys are commented out."""
    lines = [
        schema_comment(),
        "# A sweep of ntksweep. Change what you need and leave the rest: keys that are commented out show an example,",
        "# the other optional ones their default.",
        "",
    ]
    for key, field in Spec.model_fields.items():
        section = _section_of(field)
        lines += list(_comment(field.description or "", ""))
        if section is None:
            lines += [f"{key}: {_flow(name)}", ""]
            continue
        written = [f"{key}:", *entries(section, "  ")]
        optional = not field.is_required() and _default(field) is None
        lines += [*(f"# {line}" if optional else line for line in written), ""]
    return "\n".join(lines)


def entries(section: type[BaseModel], indent: str) -> Iterator[str]:
    """Yield every key of a section with its meaning and its default; keys without one are commented out."""
    for key, field in section.model_fields.items():
        yield from _comment(field.description or "", indent)
        yield indent + _entry(key, field)


def reference_page() -> str:
    """Return the reference of the spec in Markdown: every key with its meaning, default and an example."""
    parts = [
        "# The spec",
        "",
        "One YAML file describes a sweep. Unknown keys are errors. This page is written from the code by",
        "`python docs/write_reference.py`.",
        "",
    ]
    for key, field in Spec.model_fields.items():
        section = _section_of(field)
        if section is None:
            parts += [f"## `{key}`", "", f"{field.description} Example: `{_example(field)}`.", ""]
        else:
            parts += [f"## `{key}`", "", field.description or "", "", *key_table(section), ""]
    parts += ["## Parts of `grid` and `kernel`", ""]
    for section in (LambdaSection, FlowTimesSection, Logspace, SubsetsUpTo, ExplicitLayers, ExplicitGroups):
        parts += [f"**{section.__doc__}**" if section.__doc__ else "", "", *key_table(section), ""]
    return "\n".join(parts).rstrip() + "\n"


def key_table(section: type[BaseModel]) -> Iterator[str]:
    """Yield the lines of a Markdown table of the keys of `section`: meaning, default and an example of each."""
    yield "| key | meaning | default | example |"
    yield "| --- | --- | --- | --- |"
    for key, field in section.model_fields.items():
        default = "required" if field.is_required() else f"`{_flow(_default(field))}`"
        meaning = " ".join(filter(None, [field.description, bounds_of(field)])).replace("|", "\\|")
        yield f"| `{key}` | {meaning} | {default} | `{_flow(_example(field))}` |"


def _section_of(field: FieldInfo) -> type[Section] | None:
    kinds = get_args(field.annotation) or (field.annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def _entry(key: str, field: FieldInfo) -> str:
    if field.is_required():
        return f"{key}: {_flow(_example(field))}"
    default = _default(field)
    if default in (None, (), {}):
        return f"# {key}: {_flow(_example(field))}"
    return f"{key}: {_flow(default)}"


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    return None if default is PydanticUndefined else default


def _example(field: FieldInfo) -> Any:
    return field.examples[0] if field.examples else "?"


def _flow(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    text = to_yaml(value, on_one_line=True).strip()
    return text.removesuffix("...").strip()


def _comment(text: str, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(text, WIDTH - len(indent)):
        yield f"{indent}# {line}"
