"""Identities of cells and stages: hashes of the canonical JSON of all and only the values that fix their numbers.

Written with the standard library's `json`: RFC 8785, which libraries follow, writes the float 1.0 and the integer 1
alike.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

ID_LENGTH = 24
"""Hexadecimal digits kept of a SHA-256: 96 bits, so that a billion identities collide with probability 1e-11."""


_IDENTITY = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")


def is_identity(text: Any) -> bool:
    """Tell whether a value has the format of an identity."""
    return isinstance(text, str) and _IDENTITY.fullmatch(text) is not None


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: keys sorted, no spaces, shortest float representation.

    Raises:
        ValueError: `value` holds a NaN or an infinity, which JSON does not have.
        TypeError: `value` holds something that is not JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(text: str) -> str:
    """Return the identity of a text: the first digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def digests(beginning: str, ends: Sequence[str]) -> list[str]:
    """Return the identities of texts with one beginning, which is hashed once."""
    begun = hashlib.sha256(beginning.encode())
    found = []
    for end in ends:
        each = begun.copy()
        each.update(end.encode())
        found.append(each.hexdigest()[:ID_LENGTH])
    return found


def identity(value: Any) -> str:
    """Return the identity of a JSON value."""
    return digest(canonical_json(value))
