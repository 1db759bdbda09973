"""Meanings of YAML scalars by the core schema of YAML 1.2: `no`, dates and 1:30 are texts."""

import re
from typing import Any

from orchestrator.documents.node import YamlFault

MOST_DIGITS = 40
"""Most digits of an integer that is read as a number; no key takes a number with half as many."""

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_DECIMAL = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]+", re.ASCII)
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NO_NUMBER = re.compile(r"\.(nan|NaN|NAN)")

_TAGS = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}
_PREFIX = "tag:yaml.org,2002:"


def meaning(written: str, tag: str | None, *, quoted: bool, line: int) -> Any:
    """Return the meaning of a scalar: a text, a number, true, false or None.

    Args:
        written: the scalar as it is written, without its quotation marks.
        tag: its tag, such as `!!int` in full; None if it has none.
        quoted: whether it stands in quotation marks, or as a block of lines, which makes it a text.
        line: its line, for messages.

    Raises:
        YamlFault: the tag is unknown here, or does not fit what is written.
    """
    if tag is None:
        return written if quoted else plain_meaning(written, line)
    kind = _TAGS.get(tag.removeprefix(_PREFIX)) if tag.startswith(_PREFIX) else None
    if tag == "!" or kind is str:
        return written
    if kind is None:
        raise YamlFault(line, f"the tag `{tag_as_written(tag)}` means nothing here; leave it out")
    value = plain_meaning(written, line)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind and not written:
        raise YamlFault(line, f"nothing stands behind the tag `{tag_as_written(tag)}`; leave the tag out")
    if type(value) is not kind:
        raise YamlFault(line, f"`{written}` is not what its tag `{tag_as_written(tag)}` says; leave the tag out")
    return value


def plain_meaning(written: str, line: int) -> Any:
    """Return the meaning of a scalar without quotation marks and tag.

    Raises:
        YamlFault: it is a whole number with more digits than any key takes.
    """
    if _NULL.fullmatch(written):
        return None
    if _TRUE.fullmatch(written) or _FALSE.fullmatch(written):
        return written[0] in "tT"
    for form, base in ((_DECIMAL, 10), (_OCTAL, 8), (_HEXADECIMAL, 16)):
        if form.fullmatch(written):
            return _whole(written, base, line)
    if _FLOAT.fullmatch(written):
        return float(written)
    if _INFINITE.fullmatch(written):
        return float("-inf" if written[0] == "-" else "inf")
    return float("nan") if _NO_NUMBER.fullmatch(written) else written


def _whole(written: str, base: int, line: int) -> int:
    if len(written) > MOST_DIGITS:
        raise YamlFault(
            line,
            f"a number of {len(written)} digits is larger than any key takes; if it is a text, write it in quotes",
        )
    return int(written, base)


def tag_as_written(tag: str) -> str:
    """Return a tag as people write it: `!!int`."""
    return f"!!{tag.removeprefix(_PREFIX)}" if tag.startswith(_PREFIX) else tag
