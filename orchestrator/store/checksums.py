"""Checksums that name their algorithm, so that records of one and of another can be told apart and verified."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

ALGORITHM = "sha256"
"""What new records use."""


class Hash(Protocol):
    """What every algorithm offers, as those of hashlib do."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """Return the checksum of all bytes so far."""


_KNOWN: Mapping[str, Callable[[], Hash]] = {"sha256": hashlib.sha256}


def checksum_of(pieces: Iterable[bytes], algorithm: str = ALGORITHM) -> str:
    """Return the checksum of bytes that come in pieces, in hexadecimal digits.

    Raises:
        ValueError: this version does not know the algorithm.
    """
    if algorithm not in _KNOWN:
        raise ValueError(
            f"the algorithm {algorithm!r} of its checksum does not match any known one ({', '.join(_KNOWN)})"
        )
    found = _KNOWN[algorithm]()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()
