"""Correlations within a regime of lambda, tested over tasks."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

COEFFICIENTS = ("spearman", "partial_spearman")


def over_tasks(correlations: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Return a row for each regime and quantity: its correlation with `outcome` over layer sets, one number a task.

    A task's number is the mean of its coefficients over all lambdas of the regime (and ranks, learning rates and
    training-set sizes): neighboring lambdas repeat each other and are not independent evidence. Columns, for each of
    `COEFFICIENTS`: its median over tasks, `<name>_positive`, the number of tasks in which it is above 0,
    `<name>_tasks`, the number in which it exists, and `<name>_p`, the two-sided sign test over tasks. Tasks that share
    examples are counted as if they did not.

    Args:
        correlations: the table `correlations`.
        outcome: the outcome of the correlations, one of those in the table.
    """
    of_outcome = correlations[(correlations["outcome"] == outcome) & (correlations["regime"] != "all")]
    rows: list[dict[str, Any]] = []
    for (regime, quantity), group in of_outcome.groupby(["regime", "quantity"], sort=False):
        place = {"regime": regime, "quantity": quantity, "n_lambdas": group["lambda_given"].nunique()}
        rows.append(place | dict(_tests(group)))
    return pd.DataFrame(rows)


def _tests(group: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    for name in COEFFICIENTS:
        of_tasks = group.groupby("task", dropna=False)[name].mean().dropna()
        yield name, of_tasks.median()
        yield f"{name}_positive", int((of_tasks > 0).sum())
        yield f"{name}_tasks", len(of_tasks)
        yield f"{name}_p", sign_test(of_tasks.to_numpy())


def sign_test(values: "np.ndarray[Any, np.dtype[np.float64]]") -> float:
    """Return the two-sided p-value of the number of values above 0, if both signs were equally likely.

    Zeros are left out; the result is nan if no values remain. With n values it is never below 2^(1 - n).
    """
    from scipy.stats import binomtest

    signs = np.sign(values[values != 0])
    return float(binomtest(int((signs > 0).sum()), len(signs)).pvalue) if len(signs) else float("nan")
