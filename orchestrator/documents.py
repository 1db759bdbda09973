"""Reading YAML that one pydantic model describes, with errors that name the line, the key and the nearest valid one."""

import difflib
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.errors import SweepError

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

MANY_UNKNOWN = 3
"""So many unknown keys, if they are most of a file's, are no misspellings."""

_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Document(Generic[Model]):
    """A kind of file: the model that describes it, and how to speak of it.

    Attributes:
        model: what its content must be.
        what: what it is called in messages.
        beginning: how to get one to start from, as a clause.
        error: what is raised about a file that is not valid.
    """

    model: type[Model]
    what: str
    beginning: str
    error: type[SweepError]

    def read(self, path: Path) -> Model:
        """Read and check the file `path`.

        Raises:
            SweepError: of the class `error`: the file is missing, is not YAML, or is not valid; the message names each
                fault.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise self.error(f"there is no {self.what} at {path}; {self.beginning}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise self.error(f"the {self.what} {path} cannot be read: {error}") from None
        return self.parse(text, name=str(path))

    def parse(self, text: str, *, name: str) -> Model:
        """Check YAML; `name` stands in messages for where it came from.

        Raises:
            SweepError: as `read`.
        """
        try:
            tree = yaml.compose(text, Loader=_StrictLoader)
            data = yaml.load(text, Loader=_StrictLoader)
        except _RepeatedKeyError as error:
            raise self.error(f"{name}: {error}") from None
        except yaml.YAMLError as error:
            raise self.error(f"{name} is not YAML: {error}") from None
        if not isinstance(data, dict):
            raise self.error(f"{name} is empty or not a mapping; {self.beginning}")
        self._refuse_another_file(data, name)
        try:
            return self.model.model_validate(data)
        except ValidationError as error:
            faults = _faults(self.model, error, tree, data)
            heading = f"{name} is not a valid {self.what} ({len(faults)} fault{'s' if len(faults) > 1 else ''}):"
            raise self.error("\n".join([heading, *(f"  {fault}" for fault in faults)])) from None

    def _refuse_another_file(self, data: dict[str, Any], name: str) -> None:
        """Refuse a file of which most keys are unknown: it is of another kind, and its faults would fill the screen."""
        unknown = [str(key) for key in data if key not in self.model.model_fields]
        if len(unknown) >= MANY_UNKNOWN and 2 * len(unknown) > len(data):
            raise self.error(
                f"{name} does not look like a {self.what}: {', '.join(unknown[:5])} are none of its keys; was another "
                f"file meant? {self.beginning}"
            )


class _RepeatedKeyError(Exception):
    """A key stands twice in one mapping."""


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key that stands twice is an error, and 12:30:00 is not 45000."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        # A merge, `<<`, is no key: what it brings may be written again, and wins.
        nodes = [key for key, _ in node.value if key.tag != _MERGE]
        keys = [self.construct_object(key, deep=True) for key in nodes]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = nodes[position].start_mark.line + 1
                raise _RepeatedKeyError(f"line {line}: the key `{key}` stands twice; remove one")
        return super().construct_mapping(node, deep)

    def construct_plain_number(self, node: yaml.ScalarNode) -> Any:
        # YAML 1.1 reads a duration as a number to the base of 60, which nobody means.
        if ":" in node.value:
            return node.value
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _StrictLoader.construct_plain_number)


def _faults(model: type[BaseModel], error: ValidationError, tree: yaml.Node | None, data: dict[str, Any]) -> list[str]:
    # A value that fits none of a union's members is reported once for each member: keep the most telling one.
    # A member that does not know a key says nothing about its value.
    by_place: dict[Location, list[str]] = {}
    for fault in sorted(error.errors(), key=_is_unknown_key):
        message = _unknown_key(model, fault["loc"]) if _is_unknown_key(fault) else _message(fault)
        by_place.setdefault(_known_place(fault["loc"], data), []).append(message)
    innermost = [
        place
        for place in by_place
        if not any(other != place and other[: len(place)] == place for other in by_place if place)
    ]
    return [f"{_where(place, tree)}{by_place[place][0]}" for place in innermost]


def _is_unknown_key(fault: ErrorDetails) -> bool:
    return fault["type"] == "extra_forbidden"


def _message(fault: ErrorDetails) -> str:
    if fault["type"] == "missing":
        return f"the key `{fault['loc'][-1]}` is missing"
    if fault["type"] == "literal_error":
        return _unknown_choice(fault)
    if fault["type"] == "too_short":
        return "the list is empty; give at least one value"
    if fault["type"] == "byte_size":
        return f"`{fault['input']}` is no size; write the number and the unit, as in 64GB"
    return fault["msg"].removeprefix("Value error, ")


def _unknown_choice(fault: ErrorDetails) -> str:
    text = fault["msg"].replace("Input should be", "should be")
    if not isinstance(fault["input"], str):
        return text
    choices = re.findall(r"'([^']+)'", fault["msg"])
    nearest = difflib.get_close_matches(fault["input"], choices, n=1, cutoff=0.5)
    return f"`{fault['input']}` {text}" + (f"; did you mean `{nearest[0]}`?" if nearest else "")


def _unknown_key(model: type[BaseModel], location: Location) -> str:
    key = str(location[-1])
    valid = sorted({name for section in _sections_at(model, location[:-1]) for name in section.model_fields})
    if key in valid:
        return f"`{key}` does not go together with the other keys beside it; give one of {', '.join(valid)}"
    nearest = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    hint = f"did you mean `{nearest[0]}`?" if nearest else f"valid keys: {', '.join(valid)}"
    return f"unknown key `{key}`; {hint}"


def _sections_at(model: type[BaseModel], location: Location) -> list[type[BaseModel]]:
    """Return the section at a location, or all that can stand there."""
    sections: list[type[BaseModel]] = [model]
    for part in location:
        # Other parts are positions in lists, and the names that pydantic gives a union's members.
        inner = [section.model_fields[str(part)].annotation for section in sections if part in section.model_fields]
        sections = [section for annotation in inner for section in _models_in(annotation)] or sections
    return sections


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


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
