"""The map of renames: what the golden files call otherwise than the checkout that they are compared with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Map = Mapping[str, str]


@dataclass(frozen=True)
class Renames:
    """Old names and new ones; see renames.yaml for what each part holds."""

    spec: Map = field(default_factory=dict)
    parameters: Map = field(default_factory=dict)
    kinds: Map = field(default_factory=dict)
    tables: Map = field(default_factory=dict)
    columns: Map = field(default_factory=dict)
    words: Map = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Renames":
        """Return the map in a file; nothing is renamed where there is none."""
        found = yaml.safe_load(path.read_text()) if path.exists() else {}
        return cls(**{part: names or {} for part, names in found.items()})

    def kind(self, name: str) -> str:
        """Return the name of a kind of stage."""
        return self.kinds.get(name, name)

    def parameter(self, name: str) -> str:
        """Return the name of a parameter, dotted, or of a role (`from ROLE`, and `ROLE.MEMBER`)."""
        prefix = "from " if name.startswith("from ") else ""
        parts = (self.parameters.get(part, self.kinds.get(part, part)) for part in name.removeprefix(prefix).split("."))
        return prefix + ".".join(parts)

    def labels(self, text: str) -> str:
        """Return a text with the kinds of numbered stages renamed."""
        return re.sub(r"\b(\w+)(?= \d)", lambda found: self.kind(found[1]), text) if self.kinds else text

    def text(self, text: str) -> str:
        """Return a text for people with its names renamed, those that may be words only where they are names."""
        for old, new in _longest_first(self.columns, self.tables, self.kinds):
            name = re.escape(old)
            text = re.sub(rf"""(?m)(?<=["`]){name}(?=["`])|(?<=^){name}(?= \()|(?<=^  ){name}(?=:)""", new, text)
        for old, new in _longest_first(self.spec, self.words):
            text = re.sub(rf"(?<![\w.]){re.escape(old)}(?!\w)", new, text)
        return text

    def changes(self, tree: Any) -> Any:
        """Return a spec with its keys renamed."""
        for old, new in self.spec.items():
            place, key = _place(tree, old.split("."))
            if place is not None and key in place:
                value = place.pop(key)
                *sections, last = new.split(".")
                target = tree
                for section in sections:
                    target = target.setdefault(section, {})
                target[last] = value
        return tree


def _longest_first(*maps: Map) -> list[tuple[str, str]]:
    return sorted((pair for names in maps for pair in names.items()), key=lambda pair: -len(pair[0]))


def _place(tree: Any, names: list[str]) -> tuple[Any, str]:
    for name in names[:-1]:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return (tree if isinstance(tree, dict) else None), names[-1]
