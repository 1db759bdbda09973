"""Combinations of two trained tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.settings import Operation

Side = Literal["a", "b"]

SIDES: tuple[Side, Side] = ("a", "b")
"""Suffixes of the input roles of the two tasks of a pair."""


@dataclass(frozen=True)
class Combined:
    """One combination.

    Attributes:
        operation: what is done with the displacements of the two tasks.
        first: the task whose displacement is taken first; the one that is negated.
        coefficient: a.
    """

    operation: Operation
    first: Side
    coefficient: float

    @property
    def second(self) -> Side:
        """The other task."""
        return "b" if self.first == "a" else "a"


def combinations_of(operations: Sequence[Operation], coefficients: Sequence[float]) -> list[Combined]:
    """Return the combinations of a pair of tasks; a negation is of one task, so there is one for each of the two."""
    return [
        Combined(operation, first, coefficient)
        for operation in operations
        for first in (SIDES if operation == "negation" else SIDES[:1])
        for coefficient in coefficients
    ]
