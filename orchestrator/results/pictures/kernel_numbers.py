"""What a kernel says of its layer set, against what the layer set ends with."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ntk_dist.arrays import FloatArray
from orchestrator.results.least import LEAST_SETS
from orchestrator.results.pictures.lambda_path import METRIC_NAMES, best_rows, outcome_axis
from orchestrator.results.pictures.measured import KERNEL, Measured, Variant, over_seeds
from orchestrator.results.pictures.picture import Form, Missing, Panel, Picture, Series, numbers
from orchestrator.results.tables.correlations import FEWEST, LINEAR_UP_TO, ON_LOG_SCALE
from orchestrator.results.tables.statistics import bootstrap, correlations, percentile_interval

KIND, TITLE = "kernel-numbers", "Does the kernel tell which layers to adapt?"

MOST_WHISKERS = 60
"""Layer sets up to which their range over seeds is drawn; more whiskers hide the points."""

NAMES = {
    "condition_number_relative_sigma": ("condition number", "ratio"),
    "trace": ("trace", "unit of the kernel"),
    "effective_rank": ("effective rank", "modes"),
}


def picture(measured: Measured) -> Picture | Missing:
    """Return the picture of sweeps with three layer sets or more."""
    frames = [(variant, _frame(measured, variant)) for variant in measured.variants]
    frames = [(variant, frame) for variant, frame in frames if len(frame) >= FEWEST["spearman"]]
    if not frames:
        why = "Fewer than three layer sets are finished: their numbers always lie on a line."
        return Missing(KIND, TITLE, why)
    panels: list[Panel] = []
    found: list[str] = []
    first_row = 0
    for variant, frame in frames:
        for quantity in KERNEL:
            panel, coefficient = _panel(measured, variant, frame, quantity, first_row)
            panels.append(panel)
            found.append(coefficient)
        first_row += len(frame)
    rows = pd.concat([frame for _, frame in frames], ignore_index=True)
    return Picture(
        KIND, TITLE, _says(measured), tuple(panels), rows, across=3, note=_note(measured, set(rows["regime"]))
    )


def _outcome(measured: Measured, variant: Variant) -> str:
    return f"{'finetune_' if measured.trained else ''}eval_{variant.metric}"


def _frame(measured: Measured, variant: Variant) -> pd.DataFrame:
    """Return a row for each layer set: its kernel's numbers and its outcome, at the lambda of its smallest loss."""
    cells = variant.choose(measured.cells)
    outcome, prefix = _outcome(measured, variant), "finetune_" if measured.trained else ""
    columns = [*KERNEL, outcome, f"{prefix}eval_loss", "difference_eval_relative"]
    logs = cells.assign(
        **{name: np.log(cells[name].where(cells[name] > 0)) for name in (*KERNEL, "difference_eval_relative")}
    )
    found = over_seeds(logs, ["layer_set", "lambda_given"], columns)
    best = best_rows(found, f"{prefix}eval_loss")
    best = best[best["layer_set"].isin(measured.best_sets(len(measured.variants)))]
    for name in (*KERNEL, "difference_eval_relative"):
        best = best.assign(**{name: np.exp(best[name])})
    difference = best["difference_eval_relative"]
    regime = np.where(difference.isna(), "", np.where(difference <= LINEAR_UP_TO, "linear", "nonlinear"))
    kept = ["layer_set", "lambda_given", "n_seeds", *KERNEL, outcome, f"{outcome}_low", f"{outcome}_high"]
    rows = best[kept].assign(regime=regime)
    # the rows of a regime stand together, for a series is a stretch of rows
    rows = rows.dropna(subset=[outcome]).sort_values("regime", kind="stable", ignore_index=True)
    return variant.put_first(rows)


def _panel(
    measured: Measured, variant: Variant, frame: pd.DataFrame, quantity: str, first_row: int
) -> tuple[Panel, str]:
    outcome = _outcome(measured, variant)
    x = frame[quantity].to_numpy()
    series = tuple(_series(frame, quantity, outcome, first_row))
    label, unit = NAMES[quantity]
    axis = numbers(label, unit, [x], log=bool((x[np.isfinite(x)] > 0).all()))
    coefficient = _coefficient(measured, variant, frame, quantity, outcome)
    drawn = [each for each in series if each.low is not None and each.high is not None]
    ends = [frame[outcome].to_numpy(), *(end for each in drawn for end in (each.low, each.high) if end is not None)]
    return Panel(variant.titled(coefficient), axis, outcome_axis(outcome, ends), series), coefficient


def _series(frame: pd.DataFrame, quantity: str, outcome: str, first_row: int) -> Iterator[Series]:
    names = {
        "": "layer set",
        "linear": f"linear at its best λ (difference up to {LINEAR_UP_TO:g})",
        "nonlinear": "nonlinear at its best λ",
    }
    for style, (regime, name) in enumerate(names.items()):
        rows = frame[frame["regime"] == regime]
        if len(rows):
            several = rows["n_seeds"].max() > 1 and len(frame) <= MOST_WHISKERS
            yield Series(
                name, style, rows[quantity].to_numpy(), rows[outcome].to_numpy(), first_row + int(rows.index[0]),
                form=Form.POINTS,
                low=rows[f"{outcome}_low"].to_numpy() if several else None,
                high=rows[f"{outcome}_high"].to_numpy() if several else None,
            )  # fmt: skip


def _coefficient(measured: Measured, variant: Variant, frame: pd.DataFrame, quantity: str, outcome: str) -> str:
    """Return the Spearman correlation over layer sets at their best lambdas, with its interval."""
    cells = variant.choose(measured.cells)
    at_best = frame[["layer_set", "lambda_given"]].merge(cells, on=["layer_set", "lambda_given"])
    x, y = (_seeds_by_sets(at_best, name) for name in (quantity, outcome))
    x = np.log(x) if ON_LOG_SCALE[quantity] else x
    complete = np.isfinite(x).all(axis=0) & np.isfinite(y).all(axis=0)
    x, y = x[:, complete], y[:, complete]
    n = int(complete.sum())
    if n < FEWEST["spearman"]:
        return "too few layer sets with all seeds"
    control = np.arange(n, dtype=np.float64)
    once = np.ones((1, n), dtype=np.int64)
    value = correlations(x.mean(axis=0)[None], y.mean(axis=0)[None], control, once)["spearman"][0, 0, 0]
    if np.isnan(value):
        return "one of both is constant"
    draws = bootstrap(x[None], y[None], control, n_draws=2_000)["spearman"][:, 0, 0]
    low, high = percentile_interval(draws[:, None])
    return f"Spearman {value:.2f} [{low[0]:.2f}, {high[0]:.2f}], {n} sets".replace("-", "−")


def _seeds_by_sets(cells: pd.DataFrame, column: str) -> FloatArray:
    table = cells.pivot_table(index="seed", columns="layer_set", values=column, dropna=False, sort=False)
    return table.to_numpy(dtype=np.float64, na_value=np.nan)


def _says(measured: Measured) -> str:
    metric = METRIC_NAMES[measured.variants[0].metric][0]
    whose = "fine-tuned model" if measured.trained else "ridge solution"
    text = (
        "Each point is a layer set at its best λ. If a number of the kernel told which layers to adapt, the points "
        f"would rise or fall steadily with the {metric} of the {whose}. An interval that holds 0 says that nothing is "
        "shown."
    )
    if not measured.trained:
        text += " The outcome here is made from the same kernel; only fine-tuning can test it."
    return text


def _note(measured: Measured, regimes: set[str]) -> str:
    few = "" if len(measured.layer_sets) >= LEAST_SETS else "With so few layer sets the intervals mean nothing. "
    ranged = measured.n_seeds > 1 and len(measured.layer_sets) <= MOST_WHISKERS
    bars = "Bars reach from the lowest to the highest seed. " if ranged else ""
    alike = f"All layer sets are in the {min(regimes)} regime there. " if len(regimes) == 1 and min(regimes) else ""
    return (
        f"{few}{alike}{bars}Intervals hold 95 % of draws of layer sets and seeds with replacement; layer sets share "
        f"layers and are no independent sample. {measured.left_out}"
    ).strip()
