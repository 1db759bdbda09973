"""Which combinations of two trained tasks there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.settings import Operation

Side = Literal["a", "b"]

SIDES: tuple[Side, Side] = ("a", "b")
"""The two tasks of a pair: how the roles of their inputs end."""


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
    """Return the combinations of a pair of tasks; a negation is of one task, so that each of the two comes first."""
    return [
        Combined(operation, first, coefficient)
        for operation in operations
        for first in (SIDES if operation == "negation" else SIDES[:1])
        for coefficient in coefficients
    ]
