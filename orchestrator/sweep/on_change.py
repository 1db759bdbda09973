"""Which side a run keeps when spec and results folder do not ask for the same numbers."""

from enum import StrEnum


class OnChange(StrEnum):
    """What to do then: refuse, keep the stored ones, or take the given ones."""

    REFUSE = "refuse"
    STORED = "stored"
    GIVEN = "given"
