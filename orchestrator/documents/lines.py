"""The lines on which the keys of a file stand, for what is found out once the file has been read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.documents.node import NOWHERE, Node


@dataclass(frozen=True)
class Lines:
    """The lines on which the keys of a file stand; those of another file are equal, for they change no value.

    Attributes:
        name: what messages call the file; empty if the values stand in none.
        of_key: the line of each dotted key.
    """

    name: str = field(default="", compare=False)
    of_key: Mapping[str, int] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, name: str, root: Node) -> "Lines":
        """Return the lines of a file whose content is `root`."""
        return cls(name, dict(_keys(root, "")))

    def before(self, key: str) -> str:
        """Return what a message has in front of a dotted key: file and line of it, or of the section it belongs to."""
        parts = key.split(".")
        above = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        line = next((self.of_key[each] for each in above if each in self.of_key), NOWHERE)
        if not self.name:
            return ""
        return f"{self.name}: " if line == NOWHERE else f"{self.name}: line {line}, "

    def has(self, key: str) -> bool:
        """Tell whether a dotted key stands in the file."""
        return key in self.of_key


def _keys(node: Node, place: str) -> Iterator[tuple[str, int]]:
    for key, (line, below) in node.entries.items():
        dotted = f"{place}.{key}" if place else key
        yield dotted, line
        yield from _keys(below, dotted)
