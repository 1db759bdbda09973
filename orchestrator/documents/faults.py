"""Faults that pydantic finds in a file, one line for each: its place, the fault, and what to write."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.documents.node import NOWHERE, Node

Location = tuple[str | int, ...]

NO_NAMES: Mapping[str, str] = MappingProxyType({})
"""No names from elsewhere."""

LONGEST_QUOTE = 60
"""Characters of a value that are quoted in a message."""

LAST_RESORT = "this is not what the key takes"
"""Beginning of the message for a fault that has no explanation here; no such fault is known."""

ALIKE = 0.55
"""Likeness of two names, as difflib measures it, from which on one is taken for the other mistyped or cut."""

MOST_FAULTS = 20
"""Most faults that are reported; the others appear once those are corrected."""


def faults_of(
    model: type[BaseModel], error: ValidationError, root: Node, other_names: Mapping[str, str] = NO_NAMES
) -> list[str]:
    """Return a line for each fault that pydantic found.

    Args:
        model: the expected model.
        error: the error that pydantic raised.
        root: the file.
        other_names: dotted keys by the names that people know them by from elsewhere.
    """
    # A value that fits none of a union's members is reported once for each member: keep the most helpful report.
    # A member that does not know a key says nothing about its value.
    by_place: dict[Location, list[str]] = {}
    found = error.errors(include_url=False)
    missing = [fault["loc"] for fault in found if fault["type"] == "missing"]
    for fault in sorted(found, key=_is_unknown_key):
        place = _known_place(fault["loc"], root.value)
        if _is_unknown_key(fault):
            message = _unknown_key(model, fault["loc"], other_names)
        elif fault["loc"] in missing:
            # Those that only members of a union lack are not among the place's own.
            own = [str(loc[-1]) for loc in missing if loc[:-1] == place]
            message = _missing(own if fault["loc"][:-1] == place else [str(fault["loc"][-1])])
        else:
            message = _message(fault, _at(place, root))
        by_place.setdefault(place, []).append(message)
    outer = {place[:length] for place in by_place for length in range(1, len(place))}
    innermost = [place for place in by_place if place not in outer]
    lines = [one_line(f"{_where(place, root)}{_most_telling(model, place, by_place[place])}") for place in innermost]
    return lines if len(lines) <= MOST_FAULTS else [*lines[:MOST_FAULTS], f"and {len(lines) - MOST_FAULTS} more"]


def _most_telling(model: type[BaseModel], place: Location, messages: list[str]) -> str:
    """Return the message about a value: its first fault, with the possible keys if a mapping would be valid too."""
    told, *others = messages
    if told in others or not any(each.endswith(_TYPES["model"]) for each in others):
        return told
    keys = [key for section in _sections_at(model, place) for key in section.model_fields]
    return f"{told}{' Or' if told.endswith('?') else '; or'} a mapping with one of the keys {', '.join(keys)}"


def one_line(text: str) -> str:
    """Return a text with invisible characters and line breaks escaped, as in a Python literal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def quoted(value: Any) -> str:
    """Return a value between backquotes, shortened if it is long."""
    text = value if isinstance(value, str) else repr(value)
    return f"`{text}`" if len(text) <= LONGEST_QUOTE else f"`{text[:LONGEST_QUOTE]}...`"


def _is_unknown_key(fault: ErrorDetails) -> bool:
    return fault["type"] == "extra_forbidden"


def _message(fault: ErrorDetails, node: Node | None) -> str:
    kind = fault["type"]
    if kind in _MESSAGES:
        return _MESSAGES[kind](fault, node)
    if kind.partition("_")[0] in _TYPES:
        return _wrong_type(fault, node)
    if kind == "value_error":
        return str(fault["ctx"]["error"])
    return f"{LAST_RESORT}: {quoted(fault['input'])}"


_TYPES = {
    "string": "a text",
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "tuple": "a list, as in [a, b]",
    "list": "a list, as in [a, b]",
    "path": "a text",
    "dict": "keys of its own, each on a line below it",
    "model": "keys of its own, each on a line below it",
}
"""Descriptions of the values that a key takes, by the first word of pydantic's name for the fault."""


def _wrong_type(fault: ErrorDetails, node: Node | None) -> str:
    wanted = _TYPES[fault["type"].partition("_")[0]]
    value = fault["input"]
    if value is None and (node is None or not node.written):
        return f"there is no value here; give {wanted}"
    if isinstance(value, (dict, list, tuple)):
        found = "keys" if isinstance(value, dict) else "a list"
        return f"{found} cannot be used here; give {wanted}"
    written = node.written if node is not None and (node.written or node.quoted) else str(value)
    if wanted == _TYPES["list"] and "," in written:
        return f"{quoted(written)} cannot be used here; write [{_cut(written)}]"
    if wanted == _TYPES["model"] or wanted == _TYPES["list"]:
        return f"{quoted(written)} cannot be used here; give {wanted}"
    if wanted == "a text":
        return (
            f"YAML reads {quoted(written)} as {_read_as(value)}, and this is a text: write it in quotes, as "
            f'"{_cut(written)}"'
        )
    return f"{quoted(written)} is not {wanted}"


def _read_as(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the logical value {str(value).lower()}"
    return "a number"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "..."


def _missing(keys: Sequence[str]) -> str:
    *others, last = (f"`{key}`" for key in keys)
    return f"the keys {', '.join(others)} and {last} are missing" if others else f"the key {last} is missing"


_OF_OTHERS = {
    "gpu": "cuda",
    "fp32": "float32",
    "float": "float32",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
}
"""Values of keys by the names that other programs give them."""


def _unknown_choice(fault: ErrorDetails, node: Node | None) -> str:
    choices = [text or number for text, number in re.findall(r"'([^']+)'|(-?[0-9]+)", fault["ctx"]["expected"])]
    which = f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    value = fault["input"]
    if isinstance(value, dict | list) or value is None:
        return f"give {which}"
    written = node.written if node is not None and node.written else str(value)
    known = [_OF_OTHERS[written.lower()]] if _OF_OTHERS.get(written.lower()) in choices else []
    nearest = known or difflib.get_close_matches(written, choices, n=1, cutoff=ALIKE)
    return f"{quoted(written)} is not {which}" + (f"; did you mean `{nearest[0]}`?" if nearest else "")


def _bound(words: str, name: str) -> Callable[[ErrorDetails, Node | None], str]:
    def message(fault: ErrorDetails, node: Node | None) -> str:
        bound = fault["ctx"][name]
        written = f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
        return f"{quoted(fault['input'])} must be {words} {written}"

    return message


def _empty_list(fault: ErrorDetails, node: Node | None) -> str:
    return "the list is empty; give at least one value"


def _long_list(fault: ErrorDetails, node: Node | None) -> str:
    return (
        f"the list has {fault['ctx']['actual_length'] or 'too many'} values, and {fault['ctx']['max_length']:,} at most"
    )


def _empty_text(fault: ErrorDetails, node: Node | None) -> str:
    return "the text is empty; write something"


_MESSAGES: dict[str, Callable[[ErrorDetails, Node | None], str]] = {
    "literal_error": _unknown_choice,
    "enum": _unknown_choice,
    "too_short": _empty_list,
    "too_long": _long_list,
    "string_too_short": _empty_text,
    "greater_than": _bound("greater than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
}


def _unknown_key(model: type[BaseModel], location: Location, other_names: Mapping[str, str]) -> str:
    key = str(location[-1])
    valid = sorted({name for section in _sections_at(model, location[:-1]) for name in section.model_fields})
    if key in valid:
        return f"`{key}` does not go together with the other keys beside it; give one of {', '.join(valid)}"
    plain = key[:LONGEST_QUOTE].strip().lower().replace("-", "_")
    if plain in other_names and ("." in other_names[plain] or len(location) == 1):
        named = other_names[plain]
        inner = named.rpartition(".")[2]
        return f"unknown key {quoted(key)}; the key for this is `{inner if inner in valid else named}`"
    # For a key that is valid elsewhere, wrong indentation is the likelier mistake.
    nearest = difflib.get_close_matches(plain, valid, n=1, cutoff=0.8 if plain in _homes(model) else ALIKE)
    hints = [f"did you mean `{nearest[0]}`?"] if nearest else []
    if plain in _homes(model):
        hints.append(_homes(model)[plain])
    return f"unknown key {quoted(key)}; {' '.join(hints) or 'valid keys: ' + ', '.join(valid)}"


@cache
def _homes(model: type[BaseModel]) -> dict[str, str]:
    """Return the message that tells the right place of each key of a file."""
    found = {key: f"`{key}` begins at the left margin" for key in model.model_fields}
    waiting = [
        (name, section) for name, field in model.model_fields.items() for section in _models_in(field.annotation)
    ]
    while waiting:
        name, section = waiting.pop(0)
        for key, field in section.model_fields.items():
            found.setdefault(key, f"`{key}` is a key of `{name}`: put it there")
            waiting += [(f"{name}.{key}", inner) for inner in _models_in(field.annotation)]
    return found


def _sections_at(model: type[BaseModel], location: Location) -> list[type[BaseModel]]:
    """Return the section at a location, or all sections that are valid there."""
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
    """Return the part of a location that is in the file, without pydantic's names for a union's members."""
    place: list[str | int] = []
    for part in location:
        in_mapping = isinstance(data, dict) and part in data
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_mapping or in_list:
            data = data[part]
            place.append(part)
    return tuple(place)


def _where(place: Location, root: Node) -> str:
    if not place:
        return ""
    dotted = ".".join(_cut(str(part)) for part in place)
    line = _line(place, root)
    return f"{dotted}: " if line == NOWHERE else f"line {line}, {dotted}: "


def _at(place: Location, root: Node) -> Node | None:
    node = root
    for part in place:
        found = _below(part, node)
        if found is None:
            return None
        node = found[1]
    return node


def _line(place: Location, root: Node) -> int:
    line, node = root.line, root
    for part in place:
        found = _below(part, node)
        if found is None:
            break
        line, node = found
    return line


def _below(part: str | int, node: Node) -> tuple[int, Node] | None:
    """Return the line and the node of a key or of a position in a list."""
    if node.is_mapping:
        return node.entries.get(str(part))
    if isinstance(part, int) and part < len(node.items):
        return node.items[part].line, node.items[part]
    return None
