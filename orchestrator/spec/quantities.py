"""Types of the numbers that keys of a spec take, with bounds that exclude values on which plans or workers fail."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from slurm.profile.quantities import bytes_of, not_logical

SMALLEST, LARGEST = 1e-100, 1e100
"""Real numbers between which squares and quotients of two stay within what float64 holds."""


@dataclass(frozen=True)
class Between:
    """Bounds of numbers that a validator checks, for those who describe them.

    Attributes:
        lowest: the lowest number, as people write it.
        highest: the highest.
    """

    lowest: str
    highest: str


def human_bytes(count: float) -> str:
    """Write a number of bytes for people: 1536 becomes `1.5 kB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _real(number: float) -> float:
    if number <= 0:
        raise ValueError(f"`{number:g}` must be greater than 0")
    if not SMALLEST <= number <= LARGEST:
        raise ValueError(
            f"`{number:g}` must lie between {SMALLEST:g} and {LARGEST:g}, where its square is still a number"
        )
    return number


def _memory(value: Any) -> int:
    size = bytes_of(value)
    if not 10**3 <= size <= 10**15:
        raise ValueError(f"`{value}` must lie between 1KB and 1PB: write the number and the unit, as in 64GB")
    return size


Number = BeforeValidator(not_logical)

Seed = Annotated[int, Number, Field(ge=0, le=2**63 - 1)]
"""A seed, as tables and random generators hold it."""

Count = Annotated[int, Number, Field(gt=0, le=10**9)]
"""Examples, tokens, steps."""

CountOrNone = Annotated[int, Number, Field(ge=0, le=10**9)]
"""The same, or none of them."""

Processes = Annotated[int, Number, Field(gt=0, le=4096)]
"""Processes or threads of one machine or process group."""

Rank = Annotated[int, Number, Field(gt=0, le=65_536)]
"""A rank of LoRA."""

Layer = Annotated[int, Number, Field(ge=0, le=10_000)]
"""The number of a layer."""

Real = Annotated[
    float,
    Number,
    AfterValidator(_real),
    Between(f"{SMALLEST:g}", f"{LARGEST:g}"),
    WithJsonSchema({"type": "number", "minimum": SMALLEST, "maximum": LARGEST}),
]
"""A strength, a scale or a rate: more than 0."""

Share = Annotated[float, Number, Field(ge=0, lt=1)]
"""A share, at least 0 and less than 1."""

First = Field(fail_fast=True)
"""Marks a list of which only the first fault is reported: each of 100,000 values may have one."""

Memory = Annotated[
    int,
    BeforeValidator(_memory),
    Between("1KB", "1PB"),
    WithJsonSchema({"type": ["integer", "string"], "pattern": r"^[0-9]"}),
]
"""Bytes, written with their unit."""
