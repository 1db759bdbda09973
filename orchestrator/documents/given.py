"""Trees of nodes from values of a program, which stand on no line of a file."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from orchestrator.documents.composing import DEEPEST
from orchestrator.documents.node import NOWHERE, Node, YamlFault
from orchestrator.documents.scalars import MOST_DIGITS

_TABLES = {
    "pandas.DataFrame": 'frame.to_parquet("data.parquet")',
    "polars.DataFrame": 'frame.write_parquet("data.parquet")',
    "pyarrow.Table": 'pyarrow.parquet.write_table(table, "data.parquet")',
    "datasets.Dataset": 'dataset.to_parquet("data.parquet")',
}
"""Tables in memory, by library and class, and what writes each into a file."""

_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")


def node_of(value: Any, place: str = "", depth: int = 0) -> Node:
    """Return a value as a tree: texts, paths, numbers, true, false, None, and lists and mappings of those.

    Tuples, ranges and arrays are lists, and numbers of numpy those of Python.

    Args:
        value: the value.
        place: its dotted key, for messages.
        depth: how deep it lies.

    Raises:
        YamlFault: it is, or holds, something that no YAML file could hold.
    """
    if depth > DEEPEST:
        raise _fault(place, f"lists and mappings are nested more than {DEEPEST} levels deep")
    if isinstance(value, Mapping):
        return _mapping(value, place, depth)
    if not isinstance(value, str) and hasattr(value, "tolist"):  # an array, or a number of numpy or torch
        value = value.tolist()
    if isinstance(value, list | tuple | range):
        items = tuple(node_of(item, _below(place, number), depth + 1) for number, item in enumerate(value))
        return Node([item.value for item in items], NOWHERE, items=items, size=1 + _sizes(items))
    return _scalar(value, place)


def placeless(node: Node) -> Node:
    """Return a tree without its lines."""
    items = tuple(map(placeless, node.items))
    entries = {key: (NOWHERE, placeless(value)) for key, (_, value) in node.entries.items()}
    return replace(node, line=NOWHERE, items=items, entries=entries)


def _mapping(value: Mapping[Any, Any], place: str, depth: int) -> Node:
    for key in value:
        if not isinstance(key, str):
            raise _fault(_below(place, key), f"a key is a text, and this one is of the type {type(key).__name__}")
        _check_text(key, place)
    entries = {str(key): (NOWHERE, node_of(inner, _below(place, key), depth + 1)) for key, inner in value.items()}
    inner = [node for _, node in entries.values()]
    values = {key: node.value for key, (_, node) in entries.items()}
    return Node(values, NOWHERE, entries=entries, size=1 + len(entries) + _sizes(inner))


def _scalar(value: Any, place: str) -> Node:
    if isinstance(value, str | PurePath):
        text = str(value)
        _check_text(text, place)
        return Node(text, NOWHERE, text, quoted=True)
    if value is None or isinstance(value, bool):
        return Node(value, NOWHERE, {None: "null", True: "true", False: "false"}[value])
    if isinstance(value, int):
        if abs(value) >= 10**MOST_DIGITS:
            raise _fault(place, "this whole number is larger than any key takes")
        return Node(int(value), NOWHERE, str(int(value)))
    if isinstance(value, float):
        return Node(float(value), NOWHERE, repr(float(value)))
    kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"
    if kind in _TABLES:
        raise _fault(
            place,
            f"this is a {kind} in memory, and the path of a file is needed, for other processes read it too; write it "
            f'with {_TABLES[kind]}, and give "data.parquet"',
        )
    raise _fault(
        place,
        f"a value of the type {type(value).__name__}; give a text, a number, true, false, None, or a list or a "
        "mapping of those",
    )


def _check_text(text: str, place: str) -> None:
    if found := _NO_TEXT.search(text):
        raise _fault(place, f"a text holds U+{ord(found[0]):04X}, which no text here may hold; remove it")


def _sizes(nodes: Iterable[Node]) -> int:
    return sum(node.size for node in nodes)


def _below(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)


def _fault(place: str, what: str) -> YamlFault:
    return YamlFault(NOWHERE, f"{place}: {what}" if place else what)
