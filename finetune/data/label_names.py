"""Names of labels as people write them, whatever type a file gives them."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

MISSING = ""
"""Name of a label that is not there."""


@dataclass(frozen=True)
class NamedClass:
    """A label whose class has a name.

    Attributes:
        label: the label, as `task.labels` names it.
        name: what it means.
        of: its class.
    """

    label: str
    name: str
    of: int


_WHOLE = re.compile(r"([+-]?[0-9]+)\.0*")
_PLAIN = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_ /&.-]*[A-Za-z0-9_])?|-?[0-9]+")


def name_of(value: Any) -> str:
    """Return the name of a label: 1, 1.0 and " 1 " are `1`, True and "True" are `true`; empty for a missing one.

    None, nan and blank texts are missing.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        value = int(value)
    try:
        name = str(value).strip()
    except ValueError:  # an integer with more digits than Python writes
        return "a number with thousands of digits"
    if name in ("True", "TRUE", "False", "FALSE"):
        return name.lower()
    whole = _WHOLE.fullmatch(name)
    return whole[1] if whole else name


def written(labels: Iterable[tuple[str, int | None]]) -> str:
    """Return labels as the key `task.labels` takes them: `{no: 0, yes: 1}`."""
    return "{" + ", ".join(f"{_key(name)}: {'null' if of is None else of}" for name, of in labels) + "}"


def _key(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    return "'" + name.replace("'", "''") + "'" if name.isprintable() else ascii(name)
