"""Small JSON records that begin with the checksum of all that follows, so that any changed byte is found."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_BEFORE, _AFTER = b'{\n "checksum": "', b'",'


def sealed(record: Mapping[str, Any]) -> bytes:
    """Return `record`, which must not be empty, as JSON text with its checksum as first entry."""
    rest = json.dumps(record, indent=1, allow_nan=False).encode()[1:]
    return _BEFORE + hashlib.sha256(rest).hexdigest().encode() + _AFTER + rest


def unsealed(content: bytes) -> dict[str, Any]:
    """Return the record that `sealed` wrote.

    Raises:
        ValueError: `content` is not, byte for byte, what was written.
    """
    start = len(_BEFORE) + 2 * hashlib.sha256().digest_size + len(_AFTER)
    rest = content[start:]
    if content[:start] != _BEFORE + hashlib.sha256(rest).hexdigest().encode() + _AFTER:
        raise ValueError("the content does not match its checksum")
    return dict(json.loads(b"{" + rest))
