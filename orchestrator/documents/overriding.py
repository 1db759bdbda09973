"""Values that a user gives beside a file, which take the place of what stands in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.documents.composing import compose
from orchestrator.documents.given import node_of, placeless
from orchestrator.documents.node import NOWHERE, Node, YamlFault
from orchestrator.documents.writing import to_yaml

_NULL = Node(None, NOWHERE, "null")


@dataclass(frozen=True)
class Override:
    """A value for a key.

    Attributes:
        key: the dotted key; a number counts the items of a list from 0.
        value: the value.
        text: both, as `KEY=VALUE`.
    """

    key: str
    value: Node
    text: str


def overrides_of(given: Sequence[str] | Mapping[str, Any]) -> tuple[Override, ...]:
    """Return overrides from `KEY=VALUE` texts, whose values are YAML, or from a mapping of keys to values.

    Raises:
        YamlFault: one is neither, or a key is given twice; its `what` is the whole message.
    """
    if isinstance(given, str):
        given = [given]
    found = [_from_value(*item) for item in given.items()] if isinstance(given, Mapping) else list(map(_parsed, given))
    keys = [each.key for each in found]
    for each in found:
        if keys.count(each.key) > 1:
            raise YamlFault(NOWHERE, f"`{each.key}` is overridden twice; remove one")
    return tuple(found)


def overridden(root: Node, overrides: Sequence[Override]) -> Node:
    """Return a tree with some of its values replaced; sections that it lacks are added.

    Raises:
        YamlFault: a key leads through a text, a number or the end of a list; its `what` is the whole message.
    """
    for each in overrides:
        try:
            root = _with(root, each.key.split("."), each.value, "")
        except YamlFault as fault:
            raise YamlFault(NOWHERE, f"`{each.text}`: {fault.what}") from None
    return root


def _parsed(text: str) -> Override:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise YamlFault(
            NOWHERE,
            f"`{text}` overrides nothing; write KEY=VALUE with the dotted key of the spec and no space around =, as "
            "'grid.seeds=[0,1]'",
        )
    try:
        node = compose(value)
    except YamlFault as fault:
        raise YamlFault(NOWHERE, f"`{text}`: the value is not YAML: {fault.what}{_quoting(value)}") from None
    return Override(key, _NULL if node is None else placeless(node), text)


def _quoting(value: str) -> str:
    """Return advice about a value in brackets, which a shell may have cut, or which was meant as a text."""
    begun = value.lstrip()[:1]
    if begun not in ("{", "["):
        return ""
    return (
        "; for the shell, put all of KEY=VALUE in single quotes, and within them a text that begins with "
        f"{begun} in double ones"
    )


def _from_value(key: str, value: Any) -> Override:
    if not isinstance(key, str) or not all(key.split(".")):
        raise YamlFault(NOWHERE, f"`{key}` is no dotted key of the spec, as grid.seeds is")
    node = node_of(value, key)
    written = to_yaml(node.value, on_one_line=True).removesuffix("...\n").strip()
    return Override(key, node, f"{key}={written}")


def _with(node: Node, path: Sequence[str], value: Node, place: str) -> Node:
    """Return a node with the value at a path below it replaced."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    below = f"{place}.{key}" if place else key
    if node.value is None or node.is_mapping:
        line, old = node.entries.get(key, (NOWHERE, _NULL))
        entries = {**node.entries, key: (line if rest else NOWHERE, _with(old, rest, value, below))}
        values = {name: inner.value for name, (_, inner) in entries.items()}
        return replace(node, value=values, written="", quoted=False, entries=entries)
    if not isinstance(node.value, list):
        raise YamlFault(NOWHERE, f"{place} is {node.written!r} there and has no keys; override {place} as a whole")
    if not (key.isascii() and key.isdigit()):
        raise YamlFault(NOWHERE, f"{place} is a list there; override it as a whole, or an item, as {place}.0")
    position = int(key)
    if position >= len(node.items):
        raise YamlFault(NOWHERE, f"{place} has {len(node.items)} items, counted from 0; override it as a whole")
    items = list(node.items)
    items[position] = _with(items[position], rest, value, below)
    return replace(node, value=[item.value for item in items], items=tuple(items))
