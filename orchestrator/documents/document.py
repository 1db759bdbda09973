"""Reading YAML that one pydantic model describes, with errors that name the line, the key and the nearest valid one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.documents.composing import compose
from orchestrator.documents.faults import LONGEST_QUOTE, faults_of, one_line
from orchestrator.documents.files import UnreadableFileError, text_of
from orchestrator.documents.given import node_of
from orchestrator.documents.lines import Lines
from orchestrator.documents.node import NOWHERE, Node, YamlFault
from orchestrator.documents.overriding import overridden, overrides_of
from orchestrator.errors import SweepError

Model = TypeVar("Model", bound=BaseModel)

Overrides = Sequence[str] | Mapping[str, Any]
"""Values that take the place of a file's: `KEY=VALUE` texts, or a mapping of dotted keys to values."""

MANY = 5
"""Overrides that a message quotes at most."""

MANY_UNKNOWN = 3
"""Number of unknown keys that, if they are most of a file's keys, cannot all be misspellings."""


MOST_KEYS, MOST_KEYS_IN_ALL = 1_000, 20_000
"""Most keys of one mapping, and of a whole file; each may have a fault, and finding a fault takes some time."""


def crowded(root: Node) -> int | None:
    """Return the line of the mapping with which a file exceeds the limits on keys; None if it does not."""
    total, waiting = 0, [root]
    while waiting:
        node = waiting.pop()
        total += len(node.entries)
        if len(node.entries) > MOST_KEYS or total > MOST_KEYS_IN_ALL:
            return node.line
        waiting += [*node.items, *(value for _, value in node.entries.values())]
    return None


@dataclass(frozen=True)
class Document(Generic[Model]):
    """A kind of file: the model that describes it, and its wording in messages.

    Attributes:
        model: the model of its content.
        what: its name in messages.
        beginning: how to get one to start from, as a clause.
        error: the error to raise for a file that is not valid.
        other_names: dotted keys by the names that people know them by from elsewhere; messages suggest them.
    """

    model: type[Model]
    what: str
    beginning: str
    error: type[SweepError]
    other_names: Mapping[str, str] = field(default_factory=dict)

    def read(self, path: Path, overrides: Overrides = ()) -> tuple[Model, Lines]:
        """Read and check the file `path`; return its content, and the lines of its keys.

        Args:
            path: the file.
            overrides: what is given beside the file, see `overrides_of`.

        Raises:
            SweepError: of the class `error`: the file is missing, is not YAML, or is not valid; the message names each
                fault.
        """
        try:
            text = text_of(path)
        except FileNotFoundError:
            raise self.error(f"there is no {self.what} at {path}; {self.beginning}") from None
        except UnreadableFileError as error:
            raise self.error(f"the {self.what} {path} cannot be read: {error}") from None
        return self.parse(text, name=str(path), overrides=overrides)

    def parse(self, text: str, *, name: str, overrides: Overrides = ()) -> tuple[Model, Lines]:
        """Check YAML; messages name its origin as `name`.

        Raises:
            SweepError: as `read`.
        """
        try:
            root = compose(text)
        except YamlFault as fault:
            said = one_line(str(fault))
            raise self.error(f"{name}: {said}" if fault.is_yaml else f"{name} is not YAML: {said}") from None
        return self._checked(root, name, overrides)

    def check(self, tree: Mapping[str, Any], *, name: str, overrides: Overrides = ()) -> tuple[Model, Lines]:
        """Check the values of a program; messages name their origin as `name`, and the keys.

        Raises:
            SweepError: as `read`.
        """
        try:
            root = node_of(tree)
        except YamlFault as fault:
            raise self.error(f"{name}: {one_line(fault.what)}") from None
        return self._checked(root, name, overrides)

    def _checked(self, root: Node | None, name: str, given: Overrides) -> tuple[Model, Lines]:
        if root is None or not root.is_mapping:
            raise self.error(f"{name} is empty or not a mapping; {self.beginning}")
        self._refuse_another_file(root, name)
        try:
            overrides = overrides_of(given)
            root = overridden(root, overrides)
        except YamlFault as fault:
            raise self.error(one_line(fault.what)) from None
        if overrides:
            name = f"{name} with {one_line(' '.join(each.text[:LONGEST_QUOTE] for each in overrides[:MANY]))}"
        if (line := crowded(root)) is not None:
            place = "" if line == NOWHERE else f"line {line}: "
            raise self.error(
                f"{name}: {place}more than {MOST_KEYS:,} keys stand here or, aliases counted as what they say, "
                f"more than {MOST_KEYS_IN_ALL:,} in the whole file, which no {self.what} needs; remove some"
            )
        try:
            return self.model.model_validate(root.value), Lines.of(name, root)
        except ValidationError as error:
            faults = faults_of(self.model, error, root, self.other_names)
            heading = f"{name} is not a valid {self.what} ({len(faults)} fault{'s' if len(faults) > 1 else ''}):"
            raise self.error("\n".join([heading, *(f"  {fault}" for fault in faults)])) from None

    def _refuse_another_file(self, root: Node, name: str) -> None:
        """Raise an error if most keys of a file are unknown: it is of another kind, and has too many faults to list."""
        unknown = [one_line(key[:LONGEST_QUOTE]) for key in root.entries if key not in self.model.model_fields]
        if len(unknown) >= MANY_UNKNOWN and 2 * len(unknown) > len(root.entries):
            raise self.error(
                f"{name} does not look like a {self.what}: {', '.join(unknown[:5])} are none of its keys; was another "
                f"file meant? {self.beginning}"
            )
