"""Small JSON records that begin with the checksum of the rest, so that every changed byte is detected."""

import json
import re
from collections.abc import Mapping
from typing import Any

from orchestrator.store.checksums import ALGORITHM, checksum_of

_SEAL = re.compile(rb'\{\n "algorithm": "([a-z0-9]+)",\n "checksum": "([0-9a-f]+)",')


def sealed(record: Mapping[str, Any]) -> bytes:
    """Return `record`, which must not be empty, as JSON text that begins with the name and value of its checksum."""
    # On one line: with indentation Python does not use its encoder in C, which costs a small stage a tenth of its time.
    rest = b"\n " + json.dumps(record, allow_nan=False).encode()[1:] + b"\n"
    return f'{{\n "algorithm": "{ALGORITHM}",\n "checksum": "{checksum_of([rest])}",'.encode() + rest


def unsealed(content: bytes) -> dict[str, Any]:
    """Return the record that `sealed` wrote.

    Raises:
        ValueError: `content` differs from the written bytes.
    """
    seal = _SEAL.match(content)
    if seal is None:
        raise ValueError("it does not begin with its checksum: it was cut off or changed")
    rest = content[seal.end() :]
    if checksum_of([rest], seal[1].decode()) != seal[2].decode():
        raise ValueError("the content does not match its checksum")
    return dict(json.loads(b"{" + rest))
