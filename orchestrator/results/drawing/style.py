"""Colors, dashes and shapes: each style differs from the others in all three, so that gray prints are readable."""

from dataclasses import dataclass

import numpy as np

from ntk_dist.arrays import FloatArray


@dataclass(frozen=True)
class Style:
    """How a series looks.

    Attributes:
        light, dark: its color on a light and on a dark page.
        dashes: lengths of dashes and gaps; empty for a solid line.
        marker: matplotlib's name of its shape.
        shape: the same shape as an SVG path around the origin.
    """

    light: str
    dark: str
    dashes: tuple[float, ...]
    marker: str
    shape: str


# Hues of Okabe and Ito's palette for color-blind readers, darkened where white would swallow them.
STYLES = (
    Style("#0072b2", "#5fb0e6", (), "o", "M-3.4,0a3.4,3.4 0 1,0 6.8,0a3.4,3.4 0 1,0 -6.8,0z"),
    Style("#c24a0a", "#f08b52", (7, 3), "s", "M-3,-3h6v6h-6z"),
    Style("#00795a", "#35c49b", (2, 2.4), "^", "M0,-4L3.8,3H-3.8z"),
    Style("#a3488a", "#df94c6", (8, 2.5, 2, 2.5), "D", "M0,-4.2L4.2,0L0,4.2L-4.2,0z"),
    Style("#8f6200", "#dcab45", (4.5, 2), "v", "M0,4L3.8,-3H-3.8z"),
    Style("#222222", "#ededed", (10, 3), "P", "M-1.4,-4h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z"),
    Style("#2a86ba", "#9bd3f5", (1.5, 1.5), "p", "M0,-4L3.8,-1.2L2.4,3.2H-2.4L-3.8,-1.2z"),
    Style("#b8455f", "#f3a0b2", (6, 2, 1.5, 2, 1.5, 2), "h", "M-3.6,0L-1.8,-3.2H1.8L3.6,0L1.8,3.2H-1.8z"),
)

CONTEXT = ("#8b8b8b", "#8a8f98")
"""Color of series without a style, on a light and on a dark page."""

_RAMP = np.array([
    (0.965, 0.953, 0.902), (0.718, 0.824, 0.733), (0.337, 0.616, 0.659), (0.149, 0.376, 0.537), (0.071, 0.141, 0.318),
])  # fmt: skip
"""From pale to deep blue; lightness falls evenly, so that it is also read in gray."""


def shades(values: FloatArray, *, logarithmic: bool, small_is_good: bool) -> FloatArray:
    """Return how strong the color of each value is, 0 to 1 (n,); nan where there is no number."""
    known = np.isfinite(values) & ((values > 0) | (not logarithmic))
    usable = np.where(known, values, np.nan)
    usable = np.log(usable) if logarithmic else usable
    if not known.any():
        return usable
    low, high = np.nanmin(usable), np.nanmax(usable)
    strength: FloatArray = np.full(len(usable), 0.5) if high == low else (usable - low) / (high - low)
    strength = np.where(known, strength, np.nan)
    return 1 - strength if small_is_good else strength


def color(shade: float) -> str:
    """Return the color of a shade between 0 and 1, as #rrggbb."""
    place = min(max(shade, 0.0), 1.0) * (len(_RAMP) - 1)
    below = min(int(place), len(_RAMP) - 2)
    mixed = _RAMP[below] + (place - below) * (_RAMP[below + 1] - _RAMP[below])
    return "#" + "".join(f"{round(255 * part):02x}" for part in mixed)


def ink_on(shade: float) -> str:
    """Return the color of text on a shade."""
    return "#ffffff" if shade > 0.48 else "#111111"
