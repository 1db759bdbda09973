"""Agreement of the linearized model with fine-tuning, for each lambda."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ntk_dist.arrays import FloatArray
from orchestrator.results.findings.averages import Mean, mean_over
from orchestrator.results.tables.correlations import LINEAR_UP_TO

VARIANT = ["task", "adapter_rank", "learning_rate", "n_train"]
"""Columns of `cells` whose values have tables of their own."""


@dataclass(frozen=True)
class Measure:
    """A column of `cells` that is averaged over layer sets and seeds.

    Attributes:
        column: its name.
        geometric: whether its mean is geometric.
        of_ridge: whether it describes the ridge solution, which may differ from the linearization's.
    """

    column: str
    geometric: bool = False
    of_ridge: bool = False


MEASURES = (
    Measure("difference_eval_relative", geometric=True),
    Measure("difference_eval_relative_to_change", geometric=True),
    Measure("difference_eval_agreement"),
    Measure("difference_eval_kl", geometric=True),
    Measure("finetune_linearization_error", geometric=True),
    Measure("finetune_linearization_bound", geometric=True),
    Measure("finetune_distance", geometric=True),
    Measure("finetune_distance_bound", geometric=True),
    Measure("finetune_kernel_change", geometric=True),
    Measure("finetune_eval_loss"),
    Measure("linearized_eval_loss"),
    Measure("eval_loss", of_ridge=True),
    Measure("finetune_eval_accuracy"),
    Measure("linearized_eval_accuracy"),
    Measure("eval_accuracy", of_ridge=True),
    Measure("finetune_eval_pearson"),
    Measure("linearized_eval_pearson"),
    Measure("initial_eval_accuracy"),
    Measure("initial_eval_loss"),
    Measure("majority_accuracy"),
)


def linearity(cells: pd.DataFrame) -> pd.DataFrame:
    """Return a row for every task, rank, learning rate, training-set size and lambda, ready to be plotted.

    Each measure has its mean over layer sets and seeds under its own name, the ends of its 95 % interval under
    `<measure>_low` and `<measure>_high`, and their Monte Carlo error under `<measure>_interval_error` (of a geometric
    mean, relative). `regime` is linear where difference_eval_relative is at most 0.1 with its whole interval, nonlinear
    where it exceeds 0.1 with its whole interval, else mixed. `rate` is the slope of log(finetune_linearization_error)
    against log(lambda) from the lambda before: what is left of linearization falls like lambda^rate there.
    `linearization_bound_held` is the share of cells whose error is at most (b/2)|theta - theta_0|^2, and
    `n_seeds_above_majority` counts the seeds in which the model before fine-tuning beats the majority baseline.
    `n_never_pulled` counts cells in which lambda never acted on the trained model. For `outputs: trace`, and
    where cells were trained on more examples than the kernel has, the measures of the ridge solution are nan: the
    linearization that stands beside them has the solution of another kernel.

    Args:
        cells: the table `cells`; cells that were not trained or diverged are left out, and counted.
    """
    trained = cells[cells["finetune_status"].notna()]
    rows: list[dict[str, Any]] = []
    for names, of_variant in trained.groupby(VARIANT, sort=False, dropna=False):
        before: dict[str, Any] | None = None
        for strength, of_lambda in of_variant.groupby("lambda_given"):
            row = dict(zip(VARIANT, names, strict=True)) | {"lambda_given": strength} | dict(_row(of_lambda))
            rows.append(row | {"rate": np.nan if before is None else _rate(before, row)})
            before = row
    return pd.DataFrame(rows)


def seeds_by_layer_sets(cells: pd.DataFrame, column: str) -> FloatArray:
    """Return a column of cells of one lambda as an array (S, L); nan where a cell is missing or diverged."""
    ended = cells[cells["finetune_status"] != "diverged"]
    table = ended.pivot_table(index="seed", columns="layer_set", values=column, dropna=False, sort=False)
    return table.to_numpy(dtype=np.float64, na_value=np.nan)


def _has_another_ridge_solution(cells: pd.DataFrame) -> bool:
    """Tell whether the linearization of cells tends to another solution than the ridge path's."""
    averaged, apart = cells["outputs"] == "trace", cells["finetune_n_train"] != cells["n_train"]
    return bool((averaged | apart).all())


def _row(cells: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    yield "n_seeds", cells["seed"].nunique()
    yield "n_layer_sets", cells["layer_set"].nunique()
    yield "n_diverged", int((cells["finetune_status"] == "diverged").sum())
    yield "n_never_pulled", int((cells["finetune_pulled"] == 0).sum())
    for measure in MEASURES:
        if cells[measure.column].notna().any():
            values = seeds_by_layer_sets(cells, measure.column)
            if measure.of_ridge and _has_another_ridge_solution(cells):
                values = np.full_like(values, np.nan)
            mean = mean_over(values, geometric=measure.geometric)
            yield measure.column, mean.value
            yield f"{measure.column}_low", mean.low
            yield f"{measure.column}_high", mean.high
            yield f"{measure.column}_interval_error", mean.interval_error
            if measure.column == "difference_eval_relative":
                yield "regime", _regime(mean)
    yield "linearization_bound_held", _share_held(cells)
    if cells["initial_eval_accuracy"].notna().any():
        of_seed = cells.groupby("seed")[["initial_eval_accuracy", "majority_accuracy"]].first()
        above = of_seed["initial_eval_accuracy"] > of_seed["majority_accuracy"]
        yield "n_seeds_above_majority", int(above.sum())


def _regime(difference: Mean) -> str | None:
    if np.isnan(difference.value):
        return None
    if difference.high <= LINEAR_UP_TO:
        return "linear"
    return "nonlinear" if difference.low > LINEAR_UP_TO else "mixed"


def _share_held(cells: pd.DataFrame) -> float:
    errors, bounds = cells["finetune_linearization_error"], cells["finetune_linearization_bound"]
    known = errors.notna() & bounds.notna() & (cells["finetune_status"] != "diverged")
    return float((errors[known] <= bounds[known]).mean()) if known.any() else np.nan


def _rate(before: dict[str, Any], now: dict[str, Any]) -> float:
    errors = [row.get("finetune_linearization_error", np.nan) for row in (before, now)]
    if not all(error > 0 for error in errors):
        return float("nan")
    return float(np.log(errors[1] / errors[0]) / np.log(now["lambda_given"] / before["lambda_given"]))
