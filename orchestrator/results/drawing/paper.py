"""A picture as a figure for papers and slides, by matplotlib."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from warnings import catch_warnings, filterwarnings

import numpy as np

from orchestrator.errors import OutdatedError, ResultsError
from orchestrator.results.drawing.scales import places, ticks
from orchestrator.results.drawing.style import CONTEXT, STYLES, color, ink_on, shades
from orchestrator.results.pictures.numerals import shortest
from orchestrator.results.pictures.picture import Axis, Form, Grid, Panel, Picture, Scale, Series, Sign
from orchestrator.store.files import explained_output, write_output
from orchestrator.version import VERSION

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FORMATS = ("pdf", "svg", "png", "eps")
CREATOR = f"drawn by ntksweep {VERSION}"
"""What a figure says of its program, in the metadata of its format, which is not compressed."""

_SAYS_CREATOR: Mapping[str, Mapping[str, str | None]] = MappingProxyType({
    "png": {"Software": CREATOR}, "pdf": {"Creator": CREATOR, "CreationDate": None},
    "svg": {"Creator": CREATOR, "Date": None}, "eps": {"Creator": CREATOR},
})  # fmt: skip
# no date: the same numbers give the same bytes

_FORMATS = f".{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}"


class Size(StrEnum):
    """Sizes of figures: a column or the full width of a two-column page, or a slide."""

    COLUMN = "column"
    PAGE = "page"
    SLIDE = "slide"


@dataclass(frozen=True)
class _Measures:
    width: float
    height: float
    font: float
    line: float


# inches and points: a column of common two-column styles has 3.25 to 3.5 inches, their text width 6.75 to 7
_MEASURES = {
    Size.COLUMN: _Measures(3.35, 2.35, 7, 1.0),
    Size.PAGE: _Measures(6.9, 2.45, 7.5, 1.1),
    Size.SLIDE: _Measures(11.0, 4.1, 13, 2.0),
}


def refuse_other_file(path: Path) -> None:
    """Raise an error if a file lies at `path` that is no figure of ntksweep.

    Raises:
        ResultsError: one does.
        StorageError: the file cannot be read.
    """
    if not path.is_file():
        return
    with explained_output(path):
        content = path.read_bytes()
    if CREATOR.removesuffix(VERSION).encode() not in content:
        raise ResultsError(f"{path} exists and is no figure of ntksweep; name another file, or give --force")


def write_figure(picture: Picture, path: Path, size: Size) -> Path:
    """Write a picture to `path`, in the format of its ending; return it.

    Raises:
        ResultsError: the ending is none of `FORMATS`.
        OutdatedError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ResultsError(f"the format cannot be told from `{path.name}`; end it in {_FORMATS}")
    from io import BytesIO

    content = BytesIO()
    drawn = draw(picture, size)
    with settings(size), catch_warnings():
        # A letter that the font lacks is drawn as a box, which everybody sees.
        filterwarnings("ignore", message=".*missing from font")
        drawn.savefig(content, format=ending, dpi=300, metadata=dict(_SAYS_CREATOR[ending]))
    write_output(path, content.getvalue())
    return path


def draw(picture: Picture, size: Size) -> "Figure":
    """Return a picture as matplotlib's figure.

    Raises:
        OutdatedError: matplotlib is not installed.
    """
    with settings(size):
        return _figure(picture, _MEASURES[size], 1 if size is Size.COLUMN else picture.across)


def settings(size: Size) -> "AbstractContextManager[None]":
    """Return matplotlib's settings for a size, in force within the context.

    Raises:
        OutdatedError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise OutdatedError("a figure needs matplotlib: pip install 'ntksweep[report]'") from None
    font = _MEASURES[size].font
    found: AbstractContextManager[None] = matplotlib.rc_context({
        "font.size": font, "axes.titlesize": font + 0.5, "axes.labelsize": font, "xtick.labelsize": font - 0.5,
        "ytick.labelsize": font - 0.5, "legend.fontsize": font - 0.5, "axes.linewidth": 0.6, "xtick.major.width": 0.6,
        "ytick.major.width": 0.6, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
        # text stays text that journals can embed and readers can search
        "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "ntksweep",
    })  # fmt: skip
    return found


def _figure(picture: Picture, measures: _Measures, across: int) -> "Figure":
    from matplotlib.figure import Figure

    across = min(across, len(picture.panels))
    down = -(-len(picture.panels) // across)
    rows = [picture.panels[start : start + across] for start in range(0, len(picture.panels), across)]
    heights = [max(_height(panel, measures) for panel in row) for row in rows]
    legend = picture.legend if len(picture.legend) > 1 else []
    width = measures.width if across > 1 or measures.width < 4 else measures.width * 0.6
    a_line = _entries_a_line(legend, width, measures.font)
    room = 0.26 * measures.font / 7 * -(-len(legend) // a_line) if legend else 0.0
    figure = Figure(figsize=(width, sum(heights) + room), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, gridspec_kw={"height_ratios": heights})
    for place, axes in enumerate(grid.flat):
        if place < len(picture.panels):
            _panel(axes, picture.panels[place], measures)
        else:
            axes.set_axis_off()
    if legend:
        figure.legend(
            handles=[_handle(series, measures) for series in legend], loc="outside lower center", frameon=False,
            ncols=min(len(legend), a_line), handlelength=2.6, columnspacing=1.2,
        )  # fmt: skip
    return figure


def _entries_a_line(legend: list[Series], width: float, font: float) -> int:
    longest = max((len(series.name) for series in legend), default=1)
    return max(1, int(width / ((longest * 0.58 + 5) * font / 72)))


def _height(panel: Panel, measures: _Measures) -> float:
    n = len(panel.y.names)
    if panel.y.scale is not Scale.NAMES:
        return measures.height
    a_line = (2.6 if len(panel.series) > 1 else 1.6) * measures.font / 72
    return max(1.1, 0.9 * measures.font / 7 + n * (a_line if n <= 40 else a_line / 2))


def _handle(series: Series, measures: _Measures) -> "Line2D":
    from matplotlib.lines import Line2D

    style = STYLES[series.style or 0]
    return Line2D(
        [], [], color=style.light, marker=style.marker, markersize=measures.line * 3.4, label=series.name,
        linewidth=measures.line if series.form is Form.LINE else 0, linestyle=_dashes(style.dashes),
        markerfacecolor="white" if series.hollow is not None else style.light,
    )  # fmt: skip


def _dashes(dashes: tuple[float, ...]) -> "str | tuple[float, tuple[float, ...]]":
    return (0.0, tuple(length / 1.6 for length in dashes)) if dashes else "-"


def _panel(axes: "Axes", panel: Panel, measures: _Measures) -> None:
    # what upright rules say stands between the title and the axes
    said = any(rule.label and rule.upright for rule in panel.rules)
    axes.set_title(panel.title, pad=measures.font * (1.6 if said else 0.8))
    axes.set_xlabel(panel.x.title)
    if panel.y.scale is not Scale.NAMES:
        axes.set_ylabel(panel.y.title)
    _scale(axes, panel.x, across=True)
    _scale(axes, panel.y, across=False)
    if panel.grid is None:
        axes.grid(color="#e3e4e0", linewidth=0.5)
        axes.set_axisbelow(True)
    else:
        _grid(axes, panel.grid, measures)
    _rules(axes, panel, measures)
    for series in panel.series:
        _series(axes, panel, series, measures)
    _marks(axes, panel, measures)


def _scale(axes: "Axes", axis: Axis, *, across: bool) -> None:
    setting = axes.xaxis if across else axes.yaxis
    (axes.set_xscale if across else axes.set_yscale)("log" if axis.scale is Scale.LOG else "linear")
    ends = (axis.high, axis.low) if axis.scale is Scale.NAMES and not across else (axis.low, axis.high)
    (axes.set_xlim if across else axes.set_ylim)(*ends)
    found = ticks(axis, 6 if axis.scale is not Scale.NAMES else (8 if across else 60))
    setting.set_ticks([value for value, _ in found], [label for _, label in found])
    setting.set_ticks([], minor=True)


def _grid(axes: "Axes", grid: Grid, measures: _Measures) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
    from matplotlib.patches import Rectangle

    strength = shades(grid.values, logarithmic=grid.logarithmic, small_is_good=grid.small_is_good)
    known = np.flatnonzero(np.isfinite(strength))
    if not len(known):
        return
    patches = [Rectangle((grid.columns[place] - 0.5, grid.lines[place] - 0.5), 1, 1) for place in known]
    colors = [color(strength[place]) for place in known]
    axes.add_collection(PatchCollection(patches, facecolors=colors, edgecolors=colors, linewidths=0.2))
    if len(known) <= 320 and measures.width > 4:
        for place in known:
            axes.text(
                grid.columns[place], grid.lines[place], shortest(float(grid.values[place])), ha="center",
                va="center", fontsize=measures.font * 0.66, color=ink_on(strength[place]),
            )  # fmt: skip
    steps = np.linspace(1, 0, 64) if grid.small_is_good else np.linspace(0, 1, 64)
    colormap = LinearSegmentedColormap.from_list("shades", [color(step) for step in steps])
    ends = float(grid.values[known].min()), float(grid.values[known].max())
    scale = LogNorm(*ends) if grid.logarithmic else Normalize(*ends)
    key = axes.figure.colorbar(ScalarMappable(scale, colormap), ax=axes, shrink=0.9, aspect=26, pad=0.02)
    key.outline.set_visible(False)
    key.set_label(grid.label)


def _rules(axes: "Axes", panel: Panel, measures: _Measures) -> None:
    for rule in panel.rules:
        if rule.to is not None:
            (axes.axvspan if rule.upright else axes.axhspan)(
                rule.value, rule.to, color="#565c64", alpha=0.15, linewidth=0
            )
        else:
            (axes.axvline if rule.upright else axes.axhline)(
                rule.value, color="#565c64", linewidth=0.6, linestyle=(0, (3, 3))
            )
        if rule.label and rule.upright:
            on_the_right = places(panel.x, np.array([rule.value]), 0.0, 1.0)[0] > 0.5
            axes.text(
                rule.value, 1.0, rule.label, transform=axes.get_xaxis_transform(),
                ha="right" if on_the_right else "left", va="bottom",
                fontsize=measures.font * 0.85, color="#565c64",
            )  # fmt: skip
        elif rule.label:
            top = rule.value if rule.to is None else max(rule.value, rule.to)
            axes.text(
                0.99, top, rule.label, transform=axes.get_yaxis_transform(), ha="right", va="bottom",
                fontsize=measures.font * 0.85, color="#565c64", zorder=5,
            )  # fmt: skip


def _series(axes: "Axes", panel: Panel, series: Series, measures: _Measures) -> None:
    if series.form is Form.BARS:
        axes.barh(series.y, series.x, height=0.62, color=STYLES[series.style or 0].light)
        return
    style = None if series.style is None else STYLES[series.style]
    tint = CONTEXT[0] if style is None else style.light
    if series.form is Form.LINE:
        if series.low is not None and series.high is not None:
            axes.fill_between(
                series.x, series.low, series.high, color=tint, alpha=0.05 if series.faint else 0.16, linewidth=0
            )
        with_marks = style is not None and len(series.x) <= 30
        axes.plot(
            series.x, series.y, color=tint, linewidth=measures.line * (1.0 if style else 0.5),
            alpha=1.0 if style else 0.5, linestyle=_dashes(style.dashes) if style else "-",
            marker=style.marker if style and with_marks else None, markersize=measures.line * 3,
            zorder=3 if style else 2,
        )  # fmt: skip
        return
    if series.low is not None and series.high is not None:
        lying = panel.y.scale is Scale.NAMES
        lines = axes.hlines if lying else axes.vlines
        lines(series.y if lying else series.x, series.low, series.high, color=tint, linewidth=measures.line * 0.8)
    fill = "white" if series.hollow is not None and series.hollow.all() else tint
    axes.plot(
        series.x, series.y, linestyle="none", marker=(style or STYLES[0]).marker, color=tint, markerfacecolor=fill,
        markersize=measures.line * 3.6, zorder=4,
    )  # fmt: skip


def _marks(axes: "Axes", panel: Panel, measures: _Measures) -> None:
    from matplotlib.patches import Rectangle

    for mark in panel.marks:
        is_best, shape = mark.sign is Sign.BEST, "s" if mark.sign is Sign.AT_EDGE else "o"
        if panel.grid is not None:
            axes.add_patch(
                Rectangle((mark.x - 0.5, mark.y - 0.5), 1, 1, fill=False, edgecolor="#d55e00", linewidth=1.2)
            )
            continue
        size = measures.line * (8 if is_best else 6)
        axes.plot(
            [mark.x], [mark.y], marker=shape, markersize=size, markerfacecolor="none",
            markeredgecolor="#1c1f23", markeredgewidth=1.3 if is_best else 0.6, linestyle="none",
            zorder=6,
        )  # fmt: skip
