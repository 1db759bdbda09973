"""Shorter ways of writing keys of a spec: each stands for a longer one, and gives the same sweep."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Shorthand:
    """Marks a key that may be written in a shorter way.

    Attributes:
        longer: returns the longer way of writing a value; one that is written so already it returns as it is.
        schemas: returns the JSON Schemas of the shorter ways, from that of the longer one.
    """

    longer: Callable[[Any], Any]
    schemas: Callable[[JsonSchemaValue], list[JsonSchemaValue]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of the key, which is given every value in the longer way."""
        return core_schema.no_info_before_validator_function(self.longer, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the JSON Schema of a key that takes both."""
        longer = handler(schema)
        return {"anyOf": [longer, *self.schemas(longer)]}


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, list | tuple) else [value]


def _items(listed: JsonSchemaValue) -> list[JsonSchemaValue]:
    return [listed["items"]]


ONE_OR_MORE = Shorthand(_listed, _items)
"""A list that may be written as its one value, without brackets."""


def _choices(value: Any) -> Any:
    listed = _listed(value)
    for each in listed or ():
        if isinstance(each, str) and (ends := re.fullmatch(r"([0-9]{1,4})-([0-9]{1,4})", each)):
            raise ValueError(
                f"`{each}` names layers as `show` does: for these layers together write {{layers: "
                f"[{_shown(list(range(int(ends[1]), int(ends[2]) + 1)))}]}}"
            )
        if any(type(number) is int for number in (each if isinstance(each, list | tuple) else [each])):
            raise ValueError(
                f"{_shown(each)} may be a set of layers or a number of them: for these layers together write {{layers: "
                f"[{_shown(_listed(each))}]}}, for all sets of up to k layers {{subsets: k}}"
            )
    return listed


CHOICES = Shorthand(_choices, _items)
"""Choices of layer sets, for which one of them may stand."""


def seeds_listed(value: Any) -> Any:
    """Return seeds as they are; a number alone may be a seed or a count of seeds."""
    if isinstance(value, int) and not isinstance(value, bool):
        several = f", or [{', '.join(map(str, range(min(value, 5))))}{', ...' if value > 5 else ''}] for {value} seeds"
        raise ValueError(f"`{value}` may be a seed or a number of seeds: write [{value}] for the seed {value}"
                         f"{several if value > 1 else ''}")  # fmt: skip
    return value


def _strengths(value: Any) -> Any:
    if isinstance(value, list | tuple) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return {"values": _listed(value)}
    return value


STRENGTHS = Shorthand(_strengths, lambda _: [{"type": "number"}, {"type": "array", "items": {"type": "number"}}])
"""The section `lambdas`, for which a list of strengths may stand, or one of them."""


def _sets(value: Any) -> Any:
    value = _listed(value)
    if value is None:
        return value
    inner = [isinstance(each, list | tuple) for each in value]
    if any(inner) and not all(inner):
        raise ValueError(
            f"sets and single members are mixed in {_shown(value)}: write {_shown([_listed(each) for each in value])} "
            "for one set each"
        )
    return [value] if value and not any(inner) else value


SETS = Shorthand(_sets, lambda listed: [listed["items"], listed["items"]["items"]])
"""A list of sets, for which one set may stand: [0, 5] is the set of 0 and 5."""


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value)


def renamed(section: Any, names: dict[str, str]) -> Any:
    """Return a section whose keys have their full names.

    Args:
        section: the section as it is written.
        names: full names by shorter ones.

    Raises:
        ValueError: a key stands there under both names.
    """
    if not isinstance(section, dict):
        return section
    for short, full in names.items():
        if short in section and full in section:
            raise ValueError(f"`{short}` is another name of `{full}`: remove one of them")
    return {names.get(key, key): value for key, value in section.items()}
