"""Correlation coefficients by scipy and least squares, one draw at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import stats

SCIPY: Mapping[str, Callable[[Any, Any, Any], float]] = {
    "pearson": lambda x, y, _: float(stats.pearsonr(x, y).statistic),
    "spearman": lambda x, y, _: float(stats.spearmanr(x, y).statistic),
    "kendall": lambda x, y, _: float(stats.kendalltau(x, y).statistic),
    "partial_spearman": lambda x, y, control: partial_by_lstsq(*(stats.rankdata(each) for each in (x, y, control))),
}


def partial_by_lstsq(x: np.ndarray, y: np.ndarray, control: np.ndarray) -> float:
    """Correlate what a line on `control` leaves of both; nan where it leaves nothing."""
    design = np.stack([np.ones_like(control), control], axis=1)
    left = [values - design @ np.linalg.lstsq(design, values)[0] for values in (x, y)]
    if min(np.linalg.norm(each) for each in left) < 1e-9:
        return np.nan
    return float(stats.pearsonr(*left).statistic)


def by_scipy(name: str, x: np.ndarray, y: np.ndarray, control: np.ndarray) -> float:
    return np.nan if np.ptp(x) == 0 or np.ptp(y) == 0 else SCIPY[name](x, y, control)
