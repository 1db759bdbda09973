"""The parts of a YAML file with their lines."""

from dataclasses import dataclass, field
from typing import Any

NOWHERE = 0
"""The line of what stands in no file: it was given by a program, or beside the file."""


class YamlFault(Exception):  # noqa: N818 - what is at fault is the file
    """A fault of a file, with its place.

    Attributes:
        line: the line, counted from 1.
        column: the column, counted from 1; None where the whole line is meant.
        what: the fault, and the way to correct it.
        is_yaml: whether it can be read as YAML at all.
    """

    def __init__(self, line: int, what: str, *, column: int | None = None, is_yaml: bool = True) -> None:
        place = f"line {line}" if column is None else f"line {line}, column {column}"
        super().__init__(f"{place}: {what}")
        self.line, self.column, self.what, self.is_yaml = line, column, what, is_yaml


@dataclass(frozen=True, eq=False)
class Node:
    """A text, a number, a list or a mapping of a YAML file.

    Attributes:
        value: its meaning as plain Python, whose keys are all texts.
        line: the line on which it begins, counted from 1; `NOWHERE` where it stands in no file.
        written: a scalar as it is written, without quotation marks; empty for lists and mappings.
        quoted: whether a scalar stands in quotation marks or as a block of lines.
        items: the items of a list.
        entries: the keys of a mapping as written in the file, each with its line and its value.
        size: how many nodes it has, each alias counted as what it stands for.
    """

    value: Any
    line: int
    written: str = ""
    quoted: bool = False
    items: tuple["Node", ...] = ()
    entries: dict[str, tuple[int, "Node"]] = field(default_factory=dict)
    size: int = 1

    @property
    def is_mapping(self) -> bool:
        """True if it is a mapping."""
        return isinstance(self.value, dict)
