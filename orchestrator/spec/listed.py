"""Numbers that a spec lists, or gives as a logarithmic range; the times of training are such."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.spec.quantities import First, Number, Real
from orchestrator.spec.section import Section
from orchestrator.spec.shorthand import ONE_OR_MORE

MOST_STRENGTHS = 10_000
"""Lambdas of a grid."""

MOST_TIMES = 1_000
"""Times of `kernel.flow_times`."""


class Logspace(Section):
    """Numbers spaced evenly on a logarithmic scale, both ends included."""

    start: Real = Field(description="Smallest value, less than stop.", examples=[1e-6])
    stop: Real = Field(description="Largest value.", examples=[1.0])
    count: Annotated[int, Number, Field(gt=0, le=MOST_STRENGTHS)] = Field(description="How many.", examples=[13])

    @model_validator(mode="after")
    def _ascending(self) -> "Logspace":
        low, high = f"{self.stop:g}", f"{self.start:g}"
        if self.start > self.stop:
            raise ValueError(
                f"`start: {high}` is above `stop: {low}`, and start is the smallest value: write {{start: {low}, "
                f"stop: {high}, count: {self.count}}}"
            )
        if self.start == self.stop and self.count > 1:
            raise ValueError(
                f"start and stop are both {high}, so all {self.count} values would be the same: write "
                f"`values: [{high}]`, or a larger stop"
            )
        return self

    def numbers(self) -> tuple[float, ...]:
        """Return the numbers, each a power of ten rounded to 12 digits so that every machine gets the same."""
        low, high = math.log10(self.start), math.log10(self.stop)
        steps = max(1, self.count - 1)
        exponents = (low + (high - low) * i / steps for i in range(self.count))
        return tuple(float(f"{10.0**exponent:.12g}") for exponent in exponents)


TimeScale = Literal["absolute", "sigma_max"]


class FlowTimesSection(Section):
    """The times t > 0 at which training with gradient flow and gradient descent is evaluated."""

    values: Annotated[tuple[Real, ...], First, ONE_OR_MORE] | None = Field(
        None, description="The times themselves.", examples=[[1.0, 10.0, 100.0]], max_length=MOST_TIMES, min_length=1
    )
    logspace: Logspace | None = Field(
        None, description="The times as a logarithmic range.", examples=[{"start": 1.0, "stop": 1e5, "count": 16}]
    )
    scale: TimeScale = Field(
        "absolute",
        description="absolute takes them as they are, in steps times the learning rate of steps that go down the "
        "gradient of (1/2)|J d - r|^2; sigma_max in units of 1/sigma_max of each layer set's kernel.",
        examples=["sigma_max"],
    )

    @model_validator(mode="after")
    def _one_of(self) -> "FlowTimesSection":
        if (self.values is None) == (self.logspace is None):
            raise ValueError("give either `values` or `logspace`")
        if self.logspace is not None and self.logspace.count > MOST_TIMES:
            raise ValueError(f"{self.logspace.count:,} times are more than {MOST_TIMES:,}: give fewer")
        return self

    def numbers(self) -> tuple[float, ...]:
        """Return the times as given, ascending and without repeats."""
        given = self.values if self.values is not None else self.logspace.numbers() if self.logspace else ()
        return tuple(sorted(set(given)))
