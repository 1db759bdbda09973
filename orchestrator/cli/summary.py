"""The short table at the end of a run: the best lambda of each layer set."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results.loading import Results

_COLUMNS = [
    "task", "task_kind", "adapter_rank", "learning_rate", "layer_set", "seed", "n_train", "n_parameters",
    "lambda_given", "eval_loss", "eval_accuracy", "eval_pearson", "condition_number_relative_sigma", "effective_rank",
    "majority_accuracy",
]  # fmt: skip


@dataclass(frozen=True)
class LayerSetSummary:
    """The best lambda of a layer set for a task and rank, at the largest training set; numbers are means over seeds.

    Attributes:
        task: name of the task.
        adapter_rank: rank of LoRA; None without adapter.
        layer_set: name of the layer set.
        n_parameters: its parameters.
        best_lambda: the lambda, as the spec gives it, with the lowest mean evaluation loss.
        metric: mean accuracy or Pearson correlation there.
        eval_loss: mean evaluation loss there.
        condition_number: geometric mean of the trace-relative condition number.
        effective_rank: mean effective rank.
    """

    task: str
    adapter_rank: int | None
    layer_set: str
    n_parameters: int
    best_lambda: float
    metric: float | None
    eval_loss: float | None
    condition_number: float
    effective_rank: float


@dataclass(frozen=True)
class Summary:
    """Summary of a sweep.

    Attributes:
        layer_sets: one entry a layer set, in the grid's order, for every task and rank.
        metric: name of the metric's column.
        n_seeds: number of seeds in the means.
        majority_accuracy: by task, mean accuracy of always predicting the majority class; empty for regression.
    """

    layer_sets: list[LayerSetSummary]
    metric: str
    n_seeds: int
    majority_accuracy: dict[str, float]


def summarize(results: Results) -> Summary:
    """Return the summary of a sweep."""
    cells = _without_nan(results.cells.to_arrow(_COLUMNS))
    cells = cells.filter(pc.equal(cells["n_train"], pc.max(cells["n_train"])))
    classification = "classification" in cells["task_kind"].unique().to_pylist()
    metric = "eval_accuracy" if classification else "eval_pearson"
    # What is shown rests on nothing that was trained: it is the same for every learning rate.
    rates = cells["learning_rate"]
    cells = cells.filter(pc.or_kleene(pc.is_null(rates), pc.equal(rates, rates[0])))
    found = [_best(rows, metric) for rows in _by_layer_set(cells, metric)]
    n_seeds = pc.count_distinct(cells["seed"]).as_py()
    return Summary(found, metric, n_seeds, _majority(cells))


def _majority(cells: pa.Table) -> dict[str, float]:
    """Return the mean accuracy of always predicting the majority class, for each task with classes."""
    found = {}
    for task in cells["task"].unique():
        values = cells.filter(pc.equal(cells["task"], task))["majority_accuracy"].drop_null()
        if len(values):
            found[str(task)] = math.fsum(values.to_pylist()) / len(values)
    return found


def _without_nan(cells: pa.Table) -> pa.Table:
    """Return a table with null in place of nan, because means leave nulls out."""
    for position, field in enumerate(cells.schema):
        if pa.types.is_floating(field.type):
            values = cells.column(position)
            known = pc.if_else(pc.is_nan(values), pa.nulls(len(values), field.type), values)
            cells = cells.set_column(position, field.name, known)
    return cells


def _grouped(cells: pa.Table, keys: Sequence[str], aggregates: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return a row for each group, in the order in which the groups occur."""
    # several threads would return them in another order each time
    return list(cells.group_by(list(keys), use_threads=False).aggregate(list(aggregates)).to_pylist())


def _by_layer_set(cells: pa.Table, metric: str) -> Iterable[list[dict[str, Any]]]:
    """Return for each layer set of a task and rank a row for each lambda, with means over seeds."""
    condition = cells["condition_number_relative_sigma"]
    cells = cells.append_column("log_condition", pc.ln(condition))
    means = ["eval_loss", metric, "n_parameters", "log_condition", "effective_rank"]
    counts = [("log_condition", "count"), ("effective_rank", "count"), ("seed", "count")]
    keys = ["task", "adapter_rank", "layer_set", "lambda_given"]
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in _grouped(cells, keys, [*((name, "mean") for name in means), *counts]):
        found.setdefault(tuple(row[key] for key in keys[:3]), []).append(row)
    return found.values()


def _best(rows: Sequence[Mapping[str, Any]], metric: str) -> LayerSetSummary:
    def loss(row: Mapping[str, Any]) -> tuple[float, float]:
        mean = row["eval_loss_mean"]
        return (math.inf if mean is None else mean), row["lambda_given"]

    chosen, first = min(rows, key=loss), rows[0]
    known = sum(row["log_condition_count"] for row in rows) == sum(row["seed_count"] for row in rows)
    return LayerSetSummary(
        task=str(first["task"]),
        adapter_rank=first["adapter_rank"],
        layer_set=str(first["layer_set"]),
        n_parameters=int(first["n_parameters_mean"]),
        best_lambda=float(chosen["lambda_given"]),
        metric=chosen[f"{metric}_mean"],
        eval_loss=chosen["eval_loss_mean"],
        condition_number=math.exp(_mean(rows, "log_condition")) if known else math.nan,
        effective_rank=_mean(rows, "effective_rank"),
    )


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return the mean over all cells of means over those of each lambda."""
    counts = [row[f"{name}_count"] for row in rows]
    total = math.fsum(row[f"{name}_mean"] * count for row, count in zip(rows, counts, strict=True) if count)
    return total / sum(counts) if sum(counts) else math.nan
