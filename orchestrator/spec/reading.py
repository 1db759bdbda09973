"""Reading a spec from YAML, with errors that name the line, the key and the nearest valid one."""

import difflib
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.errors import SpecError
from orchestrator.spec.model import Spec

Location = tuple[str | int, ...]


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key that stands twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise SpecError(f"line {line}: the key `{key}` stands twice; remove one")
        return super().construct_mapping(node, deep)


def read_spec(path: Path) -> Spec:
    """Read and check the spec in the file `path`.

    Raises:
        SpecError: the file is missing, is not YAML, or is not a valid spec; the message names each fault.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"there is no spec at {path}; `ntksweep init {path}` writes one to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"the spec {path} cannot be read: {error}") from None
    return parse_spec(text, name=str(path))


def parse_spec(text: str, *, name: str = "spec") -> Spec:
    """Check the YAML `text` of a spec; `name` stands in messages for where it came from.

    Raises:
        SpecError: as `read_spec`.
    """
    try:
        tree = yaml.compose(text, Loader=_StrictLoader)
        data = yaml.load(text, Loader=_StrictLoader)
    except SpecError as error:
        raise SpecError(f"{name}: {error}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{name} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise SpecError(f"{name} is empty or not a mapping; `ntksweep init` writes a spec to start from")
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        faults = _faults(error, tree, data)
        heading = f"{name} is not a valid spec ({len(faults)} fault{'s' if len(faults) > 1 else ''}):"
        raise SpecError("\n".join([heading, *(f"  {fault}" for fault in faults)])) from None


def _faults(error: ValidationError, tree: yaml.Node | None, data: dict[str, Any]) -> list[str]:
    # A value that fits none of a union's members is reported once for each member: keep the most telling one.
    by_place: dict[Location, list[str]] = {}
    for fault in error.errors():
        unknown = fault["type"] == "extra_forbidden"
        message = _unknown_key(fault["loc"]) if unknown else _message(fault)
        by_place.setdefault(_known_place(fault["loc"], data), []).append(message)
    innermost = [
        place
        for place in by_place
        if not any(other != place and other[: len(place)] == place for other in by_place if place)
    ]
    return [f"{_where(place, tree)}{_pick(by_place[place])}" for place in innermost]


def _pick(messages: list[str]) -> str:
    unknown = [message for message in messages if message.startswith("unknown key")]
    return unknown[0] if unknown else messages[0]


def _message(fault: ErrorDetails) -> str:
    if fault["type"] == "missing":
        return f"the key `{fault['loc'][-1]}` is missing"
    if fault["type"] == "literal_error":
        return _unknown_choice(fault)
    if fault["type"] == "too_short":
        return "the list is empty; give at least one value"
    return fault["msg"].removeprefix("Value error, ")


def _unknown_choice(fault: ErrorDetails) -> str:
    text = fault["msg"].replace("Input should be", "should be")
    if not isinstance(fault["input"], str):
        return text
    choices = re.findall(r"'([^']+)'", fault["msg"])
    nearest = difflib.get_close_matches(fault["input"], choices, n=1, cutoff=0.5)
    return f"`{fault['input']}` {text}" + (f"; did you mean `{nearest[0]}`?" if nearest else "")


def _unknown_key(location: Location) -> str:
    section, key = _section_at(location[:-1]), str(location[-1])
    valid = sorted(section.model_fields) if section else []
    nearest = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    hint = f"did you mean `{nearest[0]}`?" if nearest else f"valid keys: {', '.join(valid)}"
    return f"unknown key `{key}`; {hint}"


def _section_at(location: Location) -> type[BaseModel] | None:
    section: type[BaseModel] | None = Spec
    for part in location:
        if section is None:
            return None
        if isinstance(part, int):
            continue
        if part in section.model_fields:
            section = _model_in(section.model_fields[part].annotation, None) or section
        else:
            section = _model_in_fields(section, part)
    return section


def _model_in_fields(section: type[BaseModel], name: str) -> type[BaseModel] | None:
    # Inside a union pydantic puts the member's class name into the location.
    found = (_model_in(field.annotation, name) for field in section.model_fields.values())
    return next((model for model in found if model), section)


def _model_in(annotation: Any, name: str | None) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation if name in (None, annotation.__name__) else None
    for argument in get_args(annotation):
        if model := _model_in(argument, name):
            return model
    return None


def _known_place(location: Location, data: Any) -> Location:
    """Return the part of a location that stands in the file: not the names that pydantic gives a union's members."""
    place: list[str | int] = []
    for part in location:
        in_mapping = isinstance(data, dict) and part in data
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_mapping or in_list:
            data = data[part]
            place.append(part)
    return tuple(place)


def _where(place: Location, tree: yaml.Node | None) -> str:
    line = _line(place, tree)
    dotted = ".".join(str(part) for part in place)
    parts = [f"line {line}" if line and place else "", dotted]
    return ", ".join(part for part in parts if part) + (": " if place else "")


def _line(place: Location, node: yaml.Node | None) -> int | None:
    line: int | None = None
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == str(part)]
            if not pairs:
                break
            line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
