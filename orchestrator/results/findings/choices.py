"""Loss from choosing a layer set before training, compared with the best one after training."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.results.findings.averages import mean_over
from orchestrator.results.findings.linearity import VARIANT
from orchestrator.results.selection.criteria import CRITERIA, Criterion

OUTCOME = "finetune_eval_loss"
ACCURACY = "finetune_eval_accuracy"

PER_PARAMETER = "contribution_per_parameter"
"""Column of a cell's `contribution_to_all` over its parameters: of itself it would choose the largest set always."""

_CONTRIBUTION = Criterion(
    "contribution", PER_PARAMETER, True, False, True,
    "share of the change of the training outputs that the layer set carries where the largest one is adapted, for each "
    "of its parameters",
)  # fmt: skip


def choices_made(cells: pd.DataFrame) -> pd.DataFrame:
    """Return a row for every task, rank, learning rate, training-set size, lambda and method of choosing a layer set.

    For each seed the layer set is chosen that is best by the criterion at this lambda, or by a baseline: `all` takes
    the largest set, `last` the highest single layer, `random` any with equal probability. `excess_loss` is the
    evaluation loss after fine-tuning minus that of the best layer set of the same seed, averaged over seeds, with a
    95 % interval over seeds; 0 is perfect. `lost_accuracy` is the highest accuracy of a layer set of the same seed
    minus that of the chosen one, averaged over seeds; nan for a regression.

    Args:
        cells: the table `cells`, with the column `PER_PARAMETER` where contributions are written.
    """
    usable = cells[cells["finetune_status"].notna() & (cells["finetune_status"] != "diverged")]
    rows: list[dict[str, Any]] = []
    for names, group in usable.groupby([*VARIANT, "lambda_given"], sort=False, dropna=False):
        place = dict(zip([*VARIANT, "lambda_given"], names, strict=True))
        by_seed = [of_seed for _, of_seed in group.groupby("seed")]
        for way in _ways(group):
            excess = np.array([[_chosen(way, of_seed, OUTCOME) - of_seed[OUTCOME].min()] for of_seed in by_seed])
            lost = [of_seed[ACCURACY].max() - _chosen(way, of_seed, ACCURACY) for of_seed in by_seed]
            mean = mean_over(excess)
            rows.append(
                place
                | {"chosen_by": way, "excess_loss": mean.value}
                | {"excess_loss_low": mean.low, "excess_loss_high": mean.high}
                | {"lost_accuracy": float(np.mean(lost)), "n_seeds": len(by_seed)}
            )
    return pd.DataFrame(rows)


def _ways(cells: pd.DataFrame) -> Iterator[str]:
    yield from (each.name for each in _criteria(cells) if cells[each.column].notna().all())
    yield from ("all", "last", "random")


def _criteria(cells: pd.DataFrame) -> tuple[Criterion, ...]:
    return (*CRITERIA, _CONTRIBUTION) if PER_PARAMETER in cells else CRITERIA


def _chosen(way: str, cells: pd.DataFrame, outcome: str) -> float:
    """Return an outcome of the layer set chosen among cells of one seed and lambda; for `random` the mean outcome."""
    if way == "random":
        return float(cells[outcome].mean())
    if way == "all":
        return _of_least(cells, -cells["n_parameters"], outcome)
    if way == "last":
        singles = cells[cells["n_layers"] == 1]
        return _of_least(singles, -singles["highest_layer"], outcome) if len(singles) else float("nan")
    criterion = next(each for each in _criteria(cells) if each.name == way)
    return _of_least(cells, cells[criterion.column].map(criterion.badness), outcome)


def _of_least(cells: pd.DataFrame, badness: "pd.Series[float]", outcome: str) -> float:
    return float(cells[outcome].iloc[int(np.argmin(badness.to_numpy()))])
