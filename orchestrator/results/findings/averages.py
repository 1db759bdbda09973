"""Means over layer sets and seeds, with intervals."""

from dataclasses import dataclass

import numpy as np

from ntk_dist.arrays import FloatArray
from orchestrator.results.tables.statistics import BOOTSTRAP_DRAWS, BOOTSTRAP_SEED, interval_error, percentile_interval


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval; all nan where there was nothing to average.

    Attributes:
        value: the mean.
        low, high: the ends of the interval.
        interval_error: Monte Carlo standard error of these ends, of the less certain one; relative if the mean is
            geometric.
    """

    value: float
    low: float
    high: float
    interval_error: float


def mean_over(values: FloatArray, *, geometric: bool = False) -> Mean:
    """Return the mean of values (S, L) over S seeds and L layer sets, with a percentile interval.

    Draws take layer sets and, independently, seeds with replacement: the pigeonhole bootstrap of Owen (Annals of
    Applied Statistics 1, 2007), as for correlations. A single seed or layer set does not vary in the draws, and the
    interval then does not cover the variation between others.

    Args:
        values: one number for each seed and layer set; layer sets with a nan in some seed are left out.
        geometric: whether the mean is geometric, for positive numbers that differ by factors.
    """
    complete = values[:, np.isfinite(values).all(axis=0)]
    if not complete.size:
        return Mean(np.nan, np.nan, np.nan, np.nan)
    numbers = np.log(complete) if geometric else complete
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    seeds, layer_sets = (generator.multinomial(n, np.full(n, 1 / n), size=BOOTSTRAP_DRAWS) / n for n in numbers.shape)
    draws = np.einsum("ds,sl,dl->d", seeds, numbers, layer_sets)
    low, high = percentile_interval(draws[:, None])
    value, low, high = (np.exp(end) if geometric else end for end in (numbers.mean(), low[0], high[0]))
    return Mean(float(value), float(low), float(high), float(interval_error(draws[:, None])[0]))
