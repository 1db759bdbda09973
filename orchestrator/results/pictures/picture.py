"""A picture before anything draws it: panels with axes and marks, and the rows that the marks stand for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from ntk_dist.arrays import FloatArray, IntArray

MOST_ROWS = 5_000
"""Rows that a picture draws at most."""


class Scale(StrEnum):
    """How values become places on an axis."""

    LINEAR = "linear"
    LOG = "log"
    NAMES = "names"


@dataclass(frozen=True)
class Axis:
    """An axis of a panel.

    Attributes:
        label: what is measured along it.
        unit: its unit; of a number without one, what kind of number it is.
        scale: linear, logarithmic, or one place for each name.
        low, high: the values at its ends; for names -1/2 and their number minus 1/2.
        names: the names, the first one on the left or on top; empty for numbers.
    """

    label: str
    unit: str
    scale: Scale
    low: float
    high: float
    names: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Label and unit in one line."""
        return f"{self.label} ({self.unit})"


class Form(StrEnum):
    """How the numbers of a series are marked."""

    LINE = "line"
    POINTS = "points"
    BARS = "bars"


@dataclass(frozen=True)
class Series:
    """Numbers that belong together: a line with a band, points with whiskers, or bars.

    Attributes:
        name: as in the legend.
        style: position among the styles; None for the many that only give context, which are gray and in no legend.
        x, y: where the marks are, (n,); what is not finite is left out.
        first_row: the row of the picture that the first mark stands for; the next marks stand for the next rows.
        form: how they are marked. Bars go from the left end of the axis to x.
        low, high: ends of a band or of whiskers along the axis of the numbers; None for none.
        faint: whether a band is hardly to be seen: many bands on each other hide everything.
        hollow: which points are drawn hollow, (n,); None for none.
    """

    name: str
    style: int | None
    x: FloatArray
    y: FloatArray
    first_row: int
    form: Form = Form.LINE
    low: FloatArray | None = None
    high: FloatArray | None = None
    faint: bool = False
    hollow: "np.ndarray[tuple[int], np.dtype[np.bool_]] | None" = None


@dataclass(frozen=True)
class Rule:
    """A straight line, or a strip, across a panel.

    Attributes:
        value: where it is.
        label: what it says.
        upright: whether it stands at a value of x, instead of lying at one of y.
        to: the other side of a strip; None for a line.
    """

    value: float
    label: str
    upright: bool = False
    to: float | None = None


class Sign(StrEnum):
    """What a mark around a point says."""

    BEST = "best"
    OWN_BEST = "own best"
    AT_EDGE = "at edge"


@dataclass(frozen=True)
class Mark:
    """A mark around a point: the best of all, the best of its series, or that at the edge of the grid."""

    x: float
    y: float
    sign: Sign


@dataclass(frozen=True)
class Grid:
    """Colored cells of a panel whose axes are names.

    Attributes:
        columns, lines: places of the cells on the two axes, (n,).
        values: their numbers, (n,).
        first_row: the row of the picture that the first cell stands for.
        label: what the numbers are, with their unit.
        logarithmic: whether colors follow the logarithm.
        small_is_good: whether small numbers get the strong color.
    """

    columns: IntArray
    lines: IntArray
    values: FloatArray
    first_row: int
    label: str
    logarithmic: bool
    small_is_good: bool


@dataclass(frozen=True)
class Panel:
    """One pair of axes with what is on it."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...] = ()
    rules: tuple[Rule, ...] = ()
    marks: tuple[Mark, ...] = ()
    grid: Grid | None = None


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        kind: its name on the command line.
        title: its title.
        says: what to see in it, in a sentence or a few.
        panels: its panels.
        rows: the numbers that it draws, a row a mark in each panel.
        across: panels beside each other where there is room.
        note: how it was made.
    """

    kind: str
    title: str
    says: str
    panels: tuple[Panel, ...]
    rows: pd.DataFrame
    across: int = 2
    note: str = ""

    @property
    def legend(self) -> list[Series]:
        """The series with a style, each name once; bars are named by their axis."""
        every = (each for panel in self.panels for each in panel.series)
        styled = (each for each in every if each.style is not None and each.form is not Form.BARS)
        return list({each.name: each for each in styled}.values())

    @property
    def signs(self) -> list[Sign]:
        """The kinds of marks that it has."""
        found = {mark.sign for panel in self.panels for mark in panel.marks}
        return [sign for sign in Sign if sign in found]


@dataclass(frozen=True)
class Missing:
    """A picture that a sweep does not have, with the reason."""

    kind: str
    title: str
    why: str


def numbers(label: str, unit: str, values: Iterable[FloatArray], *, log: bool = False) -> Axis:
    """Return an axis of numbers that holds all finite `values`, with room beside them; for `log` the positive ones."""
    found = np.concatenate([np.ravel(np.asarray(each, dtype=np.float64)) for each in values] or [np.empty(0)])
    found = found[np.isfinite(found) & ((found > 0) | (not log))]
    low, high = (float(found.min()), float(found.max())) if len(found) else (1.0, 10.0) if log else (0.0, 1.0)
    if log:
        room = max((high / low) ** 0.05, 1.15)
        return Axis(label, unit, Scale.LOG, low / room, high * room)
    extent = (high - low) * 0.06 or max(abs(high) * 0.1, 1e-9)
    return Axis(label, unit, Scale.LINEAR, low - extent, high + extent)


def names(label: str, unit: str, found: Sequence[str]) -> Axis:
    """Return an axis with a place for each name."""
    return Axis(label, unit, Scale.NAMES, -0.5, len(found) - 0.5, tuple(found))


def spread(values: FloatArray) -> bool:
    """Return whether values are positive and so far apart that a logarithmic axis shows more of them."""
    found = values[np.isfinite(values)]
    return bool(len(found) and found.min() > 0 and found.max() / found.min() > 12)
