"""The short table that a run ends with: for each layer set, the lambda that did best."""

from dataclasses import dataclass

import pandas as pd

from orchestrator.results import Results

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
    """A sweep in short.

    Attributes:
        layer_sets: one entry a layer set, in the grid's order, for every task and rank.
        metric: name of the metric's column.
        n_seeds: seeds that means are over.
        majority_accuracy: by task, mean accuracy of always saying the commonest class; empty for regression.
    """

    layer_sets: list[LayerSetSummary]
    metric: str
    n_seeds: int
    majority_accuracy: dict[str, float]


def summarise(results: Results) -> Summary:
    """Return a sweep in short."""
    cells = results.cells.to_pandas(_COLUMNS)
    cells = cells[cells["n_train"] == cells["n_train"].max()]
    classification = bool((cells["task_kind"] == "classification").any())
    metric = "eval_accuracy" if classification else "eval_pearson"
    # What is shown rests on nothing that was trained: it is the same for every learning rate.
    cells = cells[cells["learning_rate"].isna() | (cells["learning_rate"] == cells["learning_rate"].iloc[0])]
    groups = cells.groupby(["task", "adapter_rank", "layer_set"], sort=False, dropna=False)
    found = [_best(rows, metric) for _, rows in groups]
    of_tasks = cells.groupby("task", sort=False)["majority_accuracy"].mean()
    majority = {str(task): float(mean) for task, mean in of_tasks.dropna().items()}
    return Summary(found, metric, int(cells["seed"].nunique()), majority)


def _best(rows: pd.DataFrame, metric: str) -> LayerSetSummary:
    from scipy.stats import gmean

    by_lambda = rows.groupby("lambda_given", as_index=False)[["eval_loss", metric]].mean()
    chosen = by_lambda.sort_values("eval_loss", kind="stable").iloc[0]
    return LayerSetSummary(
        task=str(rows["task"].iloc[0]),
        adapter_rank=None if pd.isna(rows["adapter_rank"].iloc[0]) else int(rows["adapter_rank"].iloc[0]),
        layer_set=str(rows["layer_set"].iloc[0]),
        n_parameters=int(rows["n_parameters"].iloc[0]),
        best_lambda=float(chosen["lambda_given"]),
        metric=_number(chosen[metric]),
        eval_loss=_number(chosen["eval_loss"]),
        condition_number=float(gmean(rows["condition_number_relative_sigma"])),
        effective_rank=float(rows["effective_rank"].mean()),
    )


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
