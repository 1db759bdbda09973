"""Choice between the given spec and the stored one, for a run in which they ask for different numbers."""

from enum import StrEnum


class OnChange(StrEnum):
    """Actions for different numbers: refuse to run, keep the stored spec, or take the given one."""

    REFUSE = "refuse"
    STORED = "stored"
    GIVEN = "given"
