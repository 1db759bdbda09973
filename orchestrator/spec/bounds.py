"""Bounds of numbers as sentences, derived from the models that check them."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from orchestrator.spec.quantities import Between


def bounds_of(field: FieldInfo) -> str:
    """Return a sentence that states the bounds of a key's numbers; empty if they have none."""
    for metadata, inside in _annotations(field):
        each = "Each " if inside else ""
        for found in metadata:
            if isinstance(found, Between):
                return _sentence(each, f"from {found.lowest} to {found.highest}")
        if written := _interval(metadata):
            return _sentence(each, written)
    return ""


def _sentence(each: str, written: str) -> str:
    return f"{each}{written}." if each else f"{written[0].upper()}{written[1:]}."


def _annotations(field: FieldInfo) -> Iterator[tuple[list[Any], bool]]:
    """Yield each annotation of a field and of the members of its type, and whether it is inside a list."""
    yield list(field.metadata), get_origin(field.annotation) is tuple
    waiting = [(field.annotation, False)]
    while waiting:
        annotation, inside = waiting.pop(0)
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
            yield [each for found in metadata for each in _flat(found)], inside
        inside = inside or get_origin(annotation) in (tuple, dict)
        waiting += [(argument, inside) for argument in get_args(annotation) if not isinstance(argument, str)]


def _flat(found: Any) -> list[Any]:
    return list(found.metadata) if isinstance(found, FieldInfo) else [found]


def _interval(metadata: list[Any]) -> str:
    low = next((each for each in metadata if isinstance(each, Ge | Gt)), None)
    high = next((each for each in metadata if isinstance(each, Le | Lt)), None)
    lowest = "" if low is None else _lowest(low)
    if lowest and isinstance(high, Le):
        return f"from {lowest} to {_number(high.le)}"
    highest = "" if high is None else f"at most {_number(high.le)}" if isinstance(high, Le) else f"less than {high.lt}"
    return ", ".join(filter(None, [lowest and f"at least {lowest}", highest]))


def _lowest(bound: Ge | Gt) -> str:
    # An integer greater than 0 is at least 1; real numbers have their bounds from `Between`.
    return _number(bound.ge) if isinstance(bound, Ge) else _number(int(bound.gt) + 1)  # type: ignore[call-overload]


def _number(number: Any) -> str:
    if isinstance(number, int) and number >= 2**40:
        power = number.bit_length()
        return f"2^{power - 1}" if number == 1 << (power - 1) else f"2^{power} - 1"
    return f"{number:,}"
