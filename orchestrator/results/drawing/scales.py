"""From values to places on a drawing, and the ticks of an axis."""

import math

import numpy as np

from ntk_dist.arrays import FloatArray
from orchestrator.results.pictures.numerals import plain, power_of_ten
from orchestrator.results.pictures.picture import Axis, Scale


def places(axis: Axis, values: FloatArray, start: float, end: float) -> FloatArray:
    """Return where values lie between the places `start` of the axis' low end and `end` of its high end, (n,).

    What a logarithmic axis cannot show is nan.
    """
    values = np.asarray(values, dtype=np.float64)
    if axis.scale is Scale.LOG:
        values = np.log(values, out=np.full(values.shape, np.nan), where=values > 0)
        low, high = math.log(axis.low), math.log(axis.high)
    else:
        low, high = axis.low, axis.high
    found: FloatArray = start + (values - low) / (high - low) * (end - start)
    return found


def ticks(axis: Axis, most: int) -> list[tuple[float, str]]:
    """Return about `most` ticks or fewer, each with its label."""
    if axis.scale is Scale.NAMES:
        every = max(1, math.ceil(len(axis.names) / most))
        return [(float(place), axis.names[place]) for place in range(0, len(axis.names), every)]
    return _of_decades(axis, most) if axis.scale is Scale.LOG else _of_steps(axis.low, axis.high, most)


def _of_decades(axis: Axis, most: int) -> list[tuple[float, str]]:
    low, high = math.log10(axis.low), math.log10(axis.high)
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    if last - first >= 2:
        every = max(1, math.ceil((last - first + 1) / most))
        return [(10.0**power, power_of_ten(power)) for power in range(first, last + 1, every)]
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [digit * 10.0**power for power in range(math.floor(low), last + 1) for digit in digits]
        found = [value for value in found if axis.low <= value <= axis.high]
        if 3 <= len(found) <= most + 2:
            return [(value, plain(value)) for value in found]
    return _of_steps(axis.low, axis.high, most)


def _of_steps(low: float, high: float, most: int) -> list[tuple[float, str]]:
    least = (high - low) / max(1, most)
    size = 10.0 ** math.floor(math.log10(least))
    # halves of whole numbers, such as 2.5 steps, read badly
    factors = (1, 2, 5, 10, 20) if size >= 1 else (1, 2, 2.5, 5, 10, 20)
    step = next(size * factor for factor in factors if size * factor >= least)
    first = math.ceil(low / step - 1e-9)
    values = [place * step + 0.0 for place in range(first, math.floor(high / step + 1e-9) + 1)]
    exponent = math.floor(math.log10(step) + 1e-9)
    decimals = max(0, (1 if round(step / 10.0**exponent, 6) == 2.5 else 0) - exponent)
    if abs(high) >= 1e5 or decimals > 5:
        return [(value, plain(value)) for value in values]
    return [(value, f"{value:.{decimals}f}".replace("-", "−")) for value in values]
