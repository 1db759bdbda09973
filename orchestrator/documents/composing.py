"""Conversion of the text of a YAML file into a tree of nodes.

PyYAML finds the tokens. Their meaning is decided here, by YAML 1.2: PyYAML itself reads YAML 1.1, in which `no`
is false and 1:30 is 90, keeps the last of two equal keys, and ends in errors of Python's own where a number, a date or
an escape cannot be made, or where brackets are nested deeply.
"""

import re
from typing import Any

import yaml

from orchestrator.documents.complaints import in_plain_words
from orchestrator.documents.node import Node, YamlFault
from orchestrator.documents.scalars import meaning, tag_as_written

DEEPEST = 30
"""Most levels of nested lists and mappings; a spec needs at most 6."""

MOST_NODES = 1_000_000
"""Texts, numbers, lists and mappings of a file, aliases counted as what they stand for."""

_MERGE = "<<"
_COLLECTIONS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "!"}
_UNREADABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")


def compose(text: str) -> Node | None:
    """Return the tree of the one document that a text holds; None if it holds none.

    Raises:
        YamlFault: the text is not YAML, or contains something that no file here needs; it has the place.
    """
    _refuse_control_characters(text)
    return _Composer(text).document()


def _refuse_control_characters(text: str) -> None:
    if found := _UNREADABLE.search(text):
        before = text[: found.start()]
        column = found.start() - (before.rfind("\n") + 1) + 1
        raise YamlFault(
            before.count("\n") + 1,
            f"the character U+{ord(found[0]):04X} cannot be seen and is not allowed here; remove it",
            column=column,
            is_yaml=False,
        )


class _Composer:
    def __init__(self, text: str) -> None:
        self._parser = yaml.SafeLoader(text)
        self._anchors: dict[str, Node | None] = {}

    def document(self) -> Node | None:
        self._next()  # the stream begins
        if isinstance(self._peek(), yaml.StreamEndEvent):
            return None
        self._next()  # the document begins
        root = self._node(0)
        self._next()  # the document ends
        after = self._peek()
        if not isinstance(after, yaml.StreamEndEvent):
            raise YamlFault(_line(after), "a second document begins here (`---`); write one file for each")
        return root

    def _next(self) -> Any:
        return self._event(self._parser.get_event)

    def _peek(self) -> Any:
        return self._event(self._parser.peek_event)

    def _event(self, ask: Any) -> Any:
        try:
            return ask()
        except yaml.MarkedYAMLError as error:
            raise in_plain_words(error) from None
        except (ValueError, OverflowError):  # chr() of what an escape says
            line = self._parser.get_mark().line + 1
            raise YamlFault(
                line, "an escape with \\U names no character; in single quotes a backslash is just that", is_yaml=False
            ) from None

    def _node(self, depth: int) -> Node:
        event = self._next()
        if depth > DEEPEST:
            raise YamlFault(_line(event), f"lists and mappings are nested more than {DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
        else:
            if event.tag is not None and event.tag not in _COLLECTIONS:
                raise YamlFault(_line(event), f"the tag `{tag_as_written(event.tag)}` means nothing here; leave it out")
            is_list = isinstance(event, yaml.SequenceStartEvent)
            node = self._list(event, depth) if is_list else self._mapping(event, depth)
        if node.size > MOST_NODES:
            raise YamlFault(node.line, f"this holds more than {MOST_NODES:,} values, aliases counted as what they say")
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _aliased(self, event: yaml.AliasEvent) -> Node:
        name, line = event.anchor, _line(event)
        if name not in self._anchors:
            raise YamlFault(
                line, f"`*{name}` stands for what `&{name}` marks, and nothing above is marked so; a text that begins "
                "with * must be in quotes", is_yaml=False,
            )  # fmt: skip
        node = self._anchors[name]
        if node is None:
            raise YamlFault(line, f"`*{name}` stands within what `&{name}` marks, and would never end")
        return node

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        line, quoted = _line(event), event.style is not None
        value = meaning(event.value, event.tag, quoted=quoted, line=line)
        if isinstance(value, str) and (found := _NO_TEXT.search(value)):
            raise YamlFault(line, f"a text holds U+{ord(found[0]):04X}, which no text here may hold; remove it")
        return Node(value, line, event.value, quoted)

    def _list(self, start: yaml.Event, depth: int) -> Node:
        items = []
        size = 1
        while not isinstance(self._peek(), yaml.SequenceEndEvent):
            items.append(self._node(depth + 1))
            size += items[-1].size
            _refuse_too_many(size, start)
        self._next()
        return Node([item.value for item in items], _line(start), items=tuple(items), size=size)

    def _mapping(self, start: yaml.Event, depth: int) -> Node:
        entries: dict[str, tuple[int, Node]] = {}
        merged: dict[str, tuple[int, Node]] = {}
        size = 1
        while not isinstance(self._peek(), yaml.MappingEndEvent):
            key = self._key()
            value = self._node(depth + 1)
            size += 1 + value.size
            if key.written == _MERGE and not key.quoted:
                merged = {**_brought(value), **merged}
                continue
            if key.written in entries:
                raise YamlFault(key.line, f"the key `{_shortened(key.written)}` is written twice; remove one")
            entries[key.written] = (key.line, value)
            _refuse_too_many(size, start)
        self._next()
        entries = {**merged, **entries}
        values = {key: value.value for key, (_, value) in entries.items()}
        return Node(values, _line(start), entries=entries, size=size)

    def _key(self) -> Node:
        event = self._peek()
        if not isinstance(event, yaml.ScalarEvent):
            raise YamlFault(_line(event), "a key must be a name, not a list, a mapping or an alias")
        return self._node(0)


def _brought(value: Node) -> dict[str, tuple[int, Node]]:
    """Return the entries that a merge key adds; of several mappings, the first that has a key wins."""
    mappings = [value] if value.is_mapping else list(value.items)
    if not mappings or not all(each.is_mapping for each in mappings):
        raise YamlFault(value.line, "`<<` takes a mapping, or a list of them")
    return {key: entry for mapping in reversed(mappings) for key, entry in mapping.entries.items()}


def _refuse_too_many(size: int, start: yaml.Event) -> None:
    if size > MOST_NODES:
        raise YamlFault(_line(start), f"this holds more than {MOST_NODES:,} values, aliases counted as what they say")


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else int(event.start_mark.line) + 1


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[:most] + "..."
