"""Texts of users as terminals and logs show them: literally, never as control sequences."""

import re

_NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and newline, marks of writing direction, and bytes that are not text."""


def printable(text: str) -> str:
    """Return a text with its control characters escaped, as Python writes them in a literal."""
    return _NOT_SHOWN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)
