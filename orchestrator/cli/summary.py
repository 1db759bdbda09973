"""The short table that a run ends with: for each layer set, the lambda that did best."""

from dataclasses import dataclass

import pandas as pd

from orchestrator.results import Results

_COLUMNS = [
    "layer_set", "seed", "n_train", "n_parameters", "lambda_given", "task_kind", "eval_loss", "eval_accuracy",
    "eval_pearson", "condition_number_relative_sigma", "effective_rank", "majority_accuracy",
]  # fmt: skip


@dataclass(frozen=True)
class LayerSetSummary:
    """The best lambda of a layer set, at the largest training set; numbers are means over seeds.

    Attributes:
        layer_set: name of the layer set.
        n_parameters: its parameters.
        best_lambda: the lambda, as the spec gives it, with the lowest mean evaluation loss.
        metric: mean accuracy or Pearson correlation there.
        eval_loss: mean evaluation loss there.
        condition_number: geometric mean of the trace-relative condition number.
        effective_rank: mean effective rank.
    """

    layer_set: str
    n_parameters: int
    best_lambda: float
    metric: float | None
    eval_loss: float | None
    condition_number: float
    effective_rank: float


@dataclass(frozen=True)
class Summary:
    """A sweep in short.

    Attributes:
        layer_sets: one entry a layer set, in the grid's order.
        metric: name of the metric's column.
        n_seeds: seeds that means are over.
        majority_accuracy: mean accuracy of always saying the commonest class; None for regression.
    """

    layer_sets: list[LayerSetSummary]
    metric: str
    n_seeds: int
    majority_accuracy: float | None


def summarise(results: Results) -> Summary:
    """Return a sweep in short."""
    cells = results.cells.to_pandas(_COLUMNS)
    cells = cells[cells["n_train"] == cells["n_train"].max()]
    classification = bool((cells["task_kind"] == "classification").any())
    metric = "eval_accuracy" if classification else "eval_pearson"
    found = [_best(str(name), rows, metric) for name, rows in cells.groupby("layer_set", sort=False)]
    majority = float(cells["majority_accuracy"].mean()) if classification else None
    return Summary(found, metric, int(cells["seed"].nunique()), majority)


def _best(name: str, rows: pd.DataFrame, metric: str) -> LayerSetSummary:
    from scipy.stats import gmean

    by_lambda = rows.groupby("lambda_given", as_index=False)[["eval_loss", metric]].mean()
    chosen = by_lambda.sort_values("eval_loss", kind="stable").iloc[0]
    return LayerSetSummary(
        layer_set=name,
        n_parameters=int(rows["n_parameters"].iloc[0]),
        best_lambda=float(chosen["lambda_given"]),
        metric=_number(chosen[metric]),
        eval_loss=_number(chosen["eval_loss"]),
        condition_number=float(gmean(rows["condition_number_relative_sigma"])),
        effective_rank=float(rows["effective_rank"].mean()),
    )


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
