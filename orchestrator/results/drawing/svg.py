"""A panel as SVG: static marks that need no script, each with the row of the picture that it stands for."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from ntk_dist.arrays import FloatArray
from orchestrator.results.drawing.scales import places, ticks
from orchestrator.results.drawing.style import STYLES, color, ink_on, shades
from orchestrator.results.pictures.numerals import plain, shortest
from orchestrator.results.pictures.picture import Axis, Form, Grid, Mark, Panel, Rule, Scale, Series, Sign

WIDTH = 430
"""Width of every panel in its own units; a page shows them between 340 and 560 pixels wide."""

_HEIGHT = 292
_CHARACTER = 5.9
"""Width of a character of a label, about."""

_LONGEST_LABEL = 24
_TOP, _BOTTOM, _RIGHT = 30, 46, 12
_KEY = 40
"""Height of the color key below a grid."""


@dataclass(frozen=True)
class _Frame:
    """Where the axes of a panel lie."""

    left: float
    right: float
    top: float
    bottom: float
    height: float

    def x(self, axis: Axis, values: FloatArray) -> FloatArray:
        return places(axis, values, self.left, self.right)

    def y(self, axis: Axis, values: FloatArray) -> FloatArray:
        # the first name is on top, the smallest number at the bottom
        ends = (self.top, self.bottom) if axis.scale is Scale.NAMES else (self.bottom, self.top)
        return places(axis, values, *ends)


def panel_svg(panel: Panel, identity: str) -> Markup:
    """Return a panel as an SVG element.

    `data-x` and `data-y` of the element have, of each axis, the scale, the values at its ends and the places of those,
    so that readers can go from places back to values. Marks have `data-row`, lines that of their first point.

    Args:
        panel: what to draw.
        identity: a name for clip paths, unique in the page.
    """
    y_ticks = ticks(panel.y, _most_lines(panel.y))
    labels = [_short(label) for _, label in y_ticks]
    frame = _frame(panel, max((len(label) for label in labels), default=1))
    parts = [
        *_axes(panel, frame, y_ticks),
        *(_grid(panel, panel.grid, frame) if panel.grid else ()),
        *_rules(panel, frame),
        f'<clipPath id="{identity}"><rect x="{frame.left - 6:.1f}" y="{frame.top - 6:.1f}" '
        f'width="{frame.right - frame.left + 12:.1f}" height="{frame.bottom - frame.top + 12:.1f}"/></clipPath>',
        f'<g clip-path="url(#{identity})">',
        *(part for series in panel.series for part in _series(panel, series, frame)),
        *(part for mark in panel.marks for part in _mark(panel, mark, frame)),
        "</g>",
        *_rule_labels(panel, frame),
    ]
    ends = _ends(panel.x, frame.left, frame.right), _ends(panel.y, *_upright(panel.y, frame))
    described = f"{panel.title}. Across: {panel.x.title}. Up: {panel.y.title}."
    return Markup(
        f'<svg class="panel" viewBox="0 0 {WIDTH} {frame.height:.0f}" role="img" tabindex="0" '
        f'aria-label="{escape(described)}" data-x="{ends[0]}" data-y="{ends[1]}">{"".join(parts)}</svg>'
    )


def shapes() -> Markup:
    """Return an element that defines the shapes of all styles, once for a page."""
    symbols = "".join(
        f'<path id="shape{position}" d="{style.shape}"/>' for position, style in enumerate(STYLES)
    )  # fmt: skip
    return Markup(f'<svg width="0" height="0" class="shapes" aria-hidden="true"><defs>{symbols}</defs></svg>')


def swatch(series: Series) -> Markup:
    """Return a small picture of a series for the legend."""
    if series.form is Form.BARS:
        content = f'<rect class="bar s{series.style}" x="4" y="2" width="18" height="10"/>'
    else:
        line = f'<path class="line s{series.style}" d="M0,7H26"/>'
        hollow = " hollow" if series.hollow is not None and series.hollow.all() else ""
        point = f'<use class="point{hollow} s{series.style}" href="#shape{series.style}" x="13" y="7"/>'
        content = (line if series.form is Form.LINE else "") + point
    return Markup(f'<svg viewBox="0 0 26 14" width="26" height="14" aria-hidden="true">{content}</svg>')


def sign_svg(sign: Sign) -> Markup:
    """Return a small picture of a mark for the legend."""
    return Markup(f'<svg viewBox="0 0 18 18" width="18" height="18" aria-hidden="true">{_sign(sign, 9, 9)}</svg>')


def _frame(panel: Panel, longest: int) -> _Frame:
    left = 26 + longest * _CHARACTER
    n = len(panel.y.names)
    inner = _HEIGHT - _TOP - _BOTTOM
    if panel.y.scale is Scale.NAMES:
        beside = len(panel.series) > 1
        inner = max(60, n * (30 if beside and n <= 20 else 18 if n <= 40 else 11 if n <= 80 else 7))
    height = _TOP + inner + _BOTTOM + (_KEY if panel.grid else 0)
    return _Frame(left, WIDTH - _RIGHT, _TOP, _TOP + inner, height)


def _most_lines(axis: Axis) -> int:
    n = len(axis.names)
    if axis.scale is not Scale.NAMES:
        return 6
    return n if n <= 80 else n // 2 + 1


def _upright(axis: Axis, frame: _Frame) -> tuple[float, float]:
    return (frame.top, frame.bottom) if axis.scale is Scale.NAMES else (frame.bottom, frame.top)


def _ends(axis: Axis, start: float, end: float) -> str:
    return f"{axis.scale},{axis.low!r},{axis.high!r},{start:.1f},{end:.1f}"


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"


def _axes(panel: Panel, frame: _Frame, y_ticks: list[tuple[float, str]]) -> Iterator[str]:
    yield f'<text class="panel-title" x="8" y="14">{escape(_fitted(panel.title))}</text>'
    x_ticks = ticks(panel.x, _most_columns(panel.x, frame))
    across = frame.x(panel.x, np.array([value for value, _ in x_ticks]))
    for place, (_, label) in zip(across, x_ticks, strict=True):
        if panel.grid is None:
            yield f'<path class="hair" d="M{place:.1f},{frame.top:.1f}V{frame.bottom:.1f}"/>'
        yield _text("tick", "middle", place, frame.bottom + 15, label)
    up = frame.y(panel.y, np.array([value for value, _ in y_ticks]))
    for place, (_, label) in zip(up, y_ticks, strict=True):
        if panel.grid is None:
            yield f'<path class="hair" d="M{frame.left:.1f},{place:.1f}H{frame.right:.1f}"/>'
        full = f"<title>{escape(label)}</title>" if _short(label) != label else ""
        yield (
            f'<text class="tick" text-anchor="end" x="{frame.left - 6:.1f}" y="{place + 3.8:.1f}">'
            f"{escape(_short(label))}{full}</text>"
        )
    yield f'<path class="axis" d="M{frame.left:.1f},{frame.top:.1f}V{frame.bottom:.1f}H{frame.right:.1f}"/>'
    middle = (frame.left + frame.right) / 2
    yield _text("label", "middle", middle, frame.bottom + 33, panel.x.title)
    if panel.y.scale is not Scale.NAMES:
        upright = (frame.top + frame.bottom) / 2
        yield (
            f'<text class="label" text-anchor="middle" transform="translate(12,{upright:.1f}) rotate(-90)">'
            f"{escape(panel.y.title)}</text>"
        )


def _text(look: str, anchor: str, x: float, y: float, text: str) -> str:
    return f'<text class="{look}" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _fitted(title: str) -> str:
    longest = int((WIDTH - 16) / 6.6)
    return title if len(title) <= longest else title[: longest - 1] + "…"


def _most_columns(axis: Axis, frame: _Frame) -> int:
    if axis.scale is not Scale.NAMES:
        return 6
    widest = max((len(name) for name in axis.names), default=1) * _CHARACTER + 5
    return max(1, int((frame.right - frame.left) / widest))


def _grid(panel: Panel, grid: Grid, frame: _Frame) -> Iterator[str]:
    columns, lines = grid.columns.astype(np.float64), grid.lines.astype(np.float64)
    left, right = (frame.x(panel.x, columns + side) for side in (-0.5, 0.5))
    top, bottom = (frame.y(panel.y, lines + side) for side in (-0.5, 0.5))
    strength = shades(grid.values, logarithmic=grid.logarithmic, small_is_good=grid.small_is_good)
    with_numbers = len(strength) and bottom[0] - top[0] >= 14 and right[0] - left[0] >= 24
    for place, shade in enumerate(strength):
        if math.isnan(shade):
            continue
        yield (
            f'<rect x="{left[place]:.1f}" y="{top[place]:.1f}" width="{right[place] - left[place]:.1f}" '
            f'height="{bottom[place] - top[place]:.1f}" fill="{color(shade)}" data-row="{grid.first_row + place}"/>'
        )
        if with_numbers:
            middle = (left[place] + right[place]) / 2, (top[place] + bottom[place]) / 2 + 3
            yield (
                f'<text class="number" text-anchor="middle" x="{middle[0]:.1f}" y="{middle[1]:.1f}" '
                f'fill="{ink_on(shade)}">{shortest(float(grid.values[place]))}</text>'
            )
    yield from _key(grid, frame)


def _key(grid: Grid, frame: _Frame) -> Iterator[str]:
    """Yield the strip that says which color is which number."""
    known = grid.values[np.isfinite(grid.values)]
    if not len(known):
        return
    steps, top = 24, frame.bottom + 48
    left, width = frame.left, frame.right - frame.left
    for step in range(steps):
        shade = step / (steps - 1)
        yield (
            f'<rect x="{left + width * step / steps:.1f}" y="{top:.1f}" width="{width / steps + 0.4:.1f}" height="8" '
            f'fill="{color(1 - shade if grid.small_is_good else shade)}"/>'
        )
    scale = ", logarithmic" if grid.logarithmic else ""
    ends = ((left, "start", plain(float(known.min()))), (left + width, "end", plain(float(known.max()))))
    for x, anchor, text in ends:
        yield _text("tick", anchor, x, top + 20, text)
    yield (
        f'<text class="tick" text-anchor="middle" x="{left + width / 2:.1f}" y="{top + 20:.1f}">'
        f"{escape(_fitted(grid.label + scale))}</text>"
    )


def _rules(panel: Panel, frame: _Frame) -> Iterator[str]:
    for rule in panel.rules:
        first, last = _sides(panel, rule, frame)
        if not (math.isfinite(first) and math.isfinite(last)):
            continue
        low, extent = min(first, last), abs(last - first)
        if rule.to is None:
            along = f"M{first:.1f},{frame.top:.1f}V{frame.bottom:.1f}"
            across = f"M{frame.left:.1f},{first:.1f}H{frame.right:.1f}"
            yield f'<path class="rule" d="{along if rule.upright else across}"/>'
        elif rule.upright:
            yield _strip(low, frame.top, extent, frame.bottom - frame.top)
        else:
            yield _strip(frame.left, low, frame.right - frame.left, extent)


def _strip(x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="strip" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _sides(panel: Panel, rule: Rule, frame: _Frame) -> tuple[float, float]:
    values = np.array([rule.value, rule.value if rule.to is None else rule.to])
    first, last = frame.x(panel.x, values) if rule.upright else frame.y(panel.y, values)
    return float(first), float(last)


def _rule_labels(panel: Panel, frame: _Frame) -> Iterator[str]:
    """Yield what rules say: above the axes for upright ones, else on the right, over the lines."""
    for rule in panel.rules:
        first, last = _sides(panel, rule, frame)
        if not rule.label or not math.isfinite(first):
            continue
        x, y, anchor = frame.right - 3, min(first, last) - 4, "end"
        if rule.upright:
            on_the_right = first > (frame.left + frame.right) / 2
            x, y, anchor = first, frame.top - 3, "end" if on_the_right else "start"
        yield _text("said", anchor, x, y, rule.label)


def _series(panel: Panel, series: Series, frame: _Frame) -> Iterator[str]:
    x, y = frame.x(panel.x, series.x), frame.y(panel.y, series.y)
    look = "context" if series.style is None else f"s{series.style}"
    yield f'<g class="series {look}" data-series="{escape(series.name)}">'
    if series.form is Form.LINE:
        yield from _band(panel, series, frame, x)
        yield from _line(series, x, y)
    elif series.form is Form.BARS:
        for place in np.flatnonzero(np.isfinite(x) & np.isfinite(y)):
            yield (
                f'<rect class="bar" x="{frame.left:.1f}" y="{y[place] - 6:.1f}" '
                f'width="{max(0.0, x[place] - frame.left):.1f}" height="12" data-row="{series.first_row + place}"/>'
            )
    else:
        yield from _whiskers(panel, series, frame, x, y)
        for place in np.flatnonzero(np.isfinite(x) & np.isfinite(y)):
            hollow = " hollow" if series.hollow is not None and series.hollow[place] else ""
            yield (
                f'<use class="point{hollow}" href="#shape{series.style or 0}" x="{x[place]:.1f}" y="{y[place]:.1f}" '
                f'data-row="{series.first_row + place}"/>'
            )
    yield "</g>"


def _line(series: Series, x: FloatArray, y: FloatArray) -> Iterator[str]:
    known = np.isfinite(x) & np.isfinite(y)
    # a line ends where a number is missing, and another begins behind it
    for start, end in _stretches(known):
        points = " ".join(f"{x[place]:.1f},{y[place]:.1f}" for place in range(start, end))
        yield f'<polyline class="line" points="{points}" data-row="{series.first_row + start}"/>'
    if series.style is not None and known.sum() <= 30:
        for place in np.flatnonzero(known):
            yield f'<use class="point" href="#shape{series.style}" x="{x[place]:.1f}" y="{y[place]:.1f}"/>'


def _band(panel: Panel, series: Series, frame: _Frame, x: FloatArray) -> Iterator[str]:
    if series.low is None or series.high is None:
        return
    low, high = frame.y(panel.y, series.low), frame.y(panel.y, series.high)
    for start, end in _stretches(np.isfinite(x) & np.isfinite(low) & np.isfinite(high)):
        there = [f"{x[place]:.1f},{high[place]:.1f}" for place in range(start, end)]
        back = [f"{x[place]:.1f},{low[place]:.1f}" for place in reversed(range(start, end))]
        yield f'<path class="band{" faint" if series.faint else ""}" d="M{"L".join(there + back)}z"/>'


def _whiskers(panel: Panel, series: Series, frame: _Frame, x: FloatArray, y: FloatArray) -> Iterator[str]:
    if series.low is None or series.high is None:
        return
    lying = panel.y.scale is Scale.NAMES
    low, high = (frame.x(panel.x, end) if lying else frame.y(panel.y, end) for end in (series.low, series.high))
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & np.isfinite(low) & np.isfinite(high))
    path = "".join(
        f"M{low[place]:.1f},{y[place]:.1f}H{high[place]:.1f}"
        if lying
        else f"M{x[place]:.1f},{low[place]:.1f}V{high[place]:.1f}"
        for place in known
    )
    if path:
        yield f'<path class="whisker" d="{path}"/>'


def _stretches(known: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Iterator[tuple[int, int]]:
    """Yield the first place and the one behind the last of each stretch without a gap."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    yield from zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True)


def _mark(panel: Panel, mark: Mark, frame: _Frame) -> Iterator[str]:
    x, y = frame.x(panel.x, np.array([mark.x]))[0], frame.y(panel.y, np.array([mark.y]))[0]
    if not (math.isfinite(x) and math.isfinite(y)):
        return
    if panel.grid is not None:
        half = (
            np.diff(frame.x(panel.x, np.array([0.0, 1.0])))[0] / 2,
            np.diff(frame.y(panel.y, np.array([0.0, 1.0])))[0] / 2,
        )
        yield (
            f'<rect class="sign best" x="{x - half[0]:.1f}" y="{y - half[1]:.1f}" width="{2 * half[0]:.1f}" '
            f'height="{2 * half[1]:.1f}"/>'
        )
        return
    yield _sign(mark.sign, float(x), float(y))


def _sign(sign: Sign, x: float, y: float) -> str:
    if sign is Sign.AT_EDGE:
        return f'<rect class="sign" x="{x - 5.5:.1f}" y="{y - 5.5:.1f}" width="11" height="11"/>'
    if sign is Sign.OWN_BEST:
        return f'<circle class="sign" cx="{x:.1f}" cy="{y:.1f}" r="5.8"/>'
    return "".join(f'<circle class="sign best" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>' for radius in (8, 5))
