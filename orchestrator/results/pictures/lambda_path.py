"""Loss and metric against lambda, a line a layer set."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ntk_dist.arrays import FloatArray
from orchestrator.results.least import is_flat
from orchestrator.results.pictures.measured import Measured, Variant, over_seeds
from orchestrator.results.pictures.picture import (
    Axis,
    Mark,
    Missing,
    Panel,
    Picture,
    Rule,
    Series,
    Sign,
    numbers,
    spread,
)

KIND, TITLE = "lambda-path", "Loss and metric against λ"

METRIC_NAMES = {"accuracy": ("accuracy", "share of examples"), "pearson": ("Pearson correlation", "coefficient")}
LOSS_NAME = ("loss", "½ mean squared residual")


def picture(measured: Measured) -> Picture | Missing:
    """Return the picture of every sweep that has cells."""
    frames = [(variant, path_of(measured, variant)) for variant in measured.variants]
    frames = [(variant, frame) for variant, frame in frames if len(frame)]
    if not frames:
        return Missing(KIND, TITLE, "No cell of the sweep is finished yet.")
    rows = pd.concat([frame for _, frame in frames], ignore_index=True)
    panels: list[Panel] = []
    first_row = 0
    for variant, frame in frames:
        panels.extend(_panels(measured, variant, frame, first_row))
        first_row += len(frame)
    return Picture(KIND, TITLE, _says(measured, rows, frames), tuple(panels), rows, note=_note(measured, rows))


def path_of(measured: Measured, variant: Variant) -> pd.DataFrame:
    """Return a row for each layer set and lambda of a variant: losses and metrics over seeds, lambda ascending."""
    cells = variant.choose(measured.cells)
    columns = [column for _, column in outcomes(measured, variant)]
    rows_a_set = len(measured.variants) * cells["lambda_given"].nunique()
    cells = cells[cells["layer_set"].isin(measured.best_sets(rows_a_set))]
    found = over_seeds(cells, ["layer_set", "lambda_given"], columns)
    order = {name: position for position, name in enumerate(measured.layer_sets)}
    found["place"] = found["layer_set"].map(order)
    found = found.sort_values(["place", "lambda_given"], kind="stable", ignore_index=True).drop(columns="place")
    return variant.put_first(found)


def outcomes(measured: Measured, variant: Variant) -> list[tuple[str, str]]:
    """Return whose numbers there are and the columns that have them: loss and metric of each model."""
    models = {"ridge solution": "", "fine-tuned": "finetune_"} if measured.trained else {"ridge solution": ""}
    cells = variant.choose(measured.cells)
    return [
        (whose, f"{prefix}eval_{what}")
        for whose, prefix in models.items()
        for what in ("loss", variant.metric)
        if cells[f"{prefix}eval_{what}"].notna().any()
    ]


def outcome_axis(column: str, values: "list[FloatArray]") -> Axis:
    """Return the axis of a loss or a metric."""
    if column.endswith("loss"):
        return numbers(*LOSS_NAME, values, log=spread(np.concatenate(values)))
    return numbers(*METRIC_NAMES["accuracy" if column.endswith("accuracy") else "pearson"], values)


def _panels(measured: Measured, variant: Variant, frame: pd.DataFrame, first_row: int) -> Iterator[Panel]:
    lambdas = frame["lambda_given"].to_numpy()
    x = numbers("λ", measured.lambda_unit, [lambdas], log=bool((lambdas > 0).all()))
    for whose, column in outcomes(measured, variant):
        series = tuple(_lines(measured, frame, column, first_row))
        rules = tuple(_rules(variant.choose(measured.cells), column))
        # a band of a gray line is not drawn
        ends = [frame[column].to_numpy()] + [
            end for each in series if each.low is not None and each.high is not None for end in (each.low, each.high)
        ]
        at_rules = np.array([rule.value for rule in rules])
        what = "loss" if column.endswith("loss") else METRIC_NAMES[variant.metric][0]
        title = variant.titled(f"{whose}, {what}")
        y = outcome_axis(column, [*ends, at_rules])
        edges = tuple(Rule(value, "", upright=True) for value in (lambdas.min(), lambdas.max()))
        yield Panel(title, x, y, series, (*rules, *edges), tuple(_marks(measured, frame, column)))


def _lines(measured: Measured, frame: pd.DataFrame, column: str, first_row: int) -> Iterator[Series]:
    for name, style, rows in measured.lines_of(frame):
        banded = style is not None and rows["n_seeds"].max() > 1
        yield Series(
            name, style, rows["lambda_given"].to_numpy(), rows[column].to_numpy(), first_row + int(rows.index[0]),
            low=rows[f"{column}_low"].to_numpy() if banded else None,
            high=rows[f"{column}_high"].to_numpy() if banded else None,
            faint=name != measured.ranking[0],
        )  # fmt: skip


def _rules(cells: pd.DataFrame, column: str) -> Iterator[Rule]:
    if column.endswith("accuracy") and cells["majority_accuracy"].notna().any():
        yield Rule(float(cells["majority_accuracy"].mean()), "majority class")
    if column.endswith("loss") and cells["initial_eval_loss"].notna().any():
        yield Rule(float(cells["initial_eval_loss"].mean()), "before fine-tuning")


def best_rows(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the row of each layer set at which a column is best: smallest for a loss, largest for a metric."""
    signed = frame[column] if column.endswith("loss") else -frame[column]
    found = signed.dropna().groupby(frame["layer_set"], sort=False).idxmin()
    return frame.loc[found]


def best_of_all(frame: pd.DataFrame, best: pd.DataFrame, column: str) -> "pd.Series[Any]":
    """Return the best of the best rows of a frame; where some lack seeds, of those that have all that others have."""
    whole = best[best["n_seeds"] == frame["n_seeds"].max()]
    usable = whole if len(whole) else best
    signed = usable[column] if column.endswith("loss") else -usable[column]
    return usable.iloc[int(signed.to_numpy().argmin())]


def at_edge(frame: pd.DataFrame, best: pd.DataFrame, column: str) -> "pd.Series[bool]":
    """Return which of the best rows by a column lie at the smallest or largest lambda of a frame.

    None does whose line is flat: it asks for no other lambda.
    """
    ends = frame.groupby("layer_set", sort=False)[column].agg(["min", "max"])
    flat = {name for name, row in ends.iterrows() if is_flat(row["min"], row["max"])}
    outermost = [frame["lambda_given"].min(), frame["lambda_given"].max()]
    return best["lambda_given"].isin(outermost) & ~best["layer_set"].isin(flat)


def _marks(measured: Measured, frame: pd.DataFrame, column: str) -> Iterator[Mark]:
    best = best_rows(frame, column)
    if best.empty:
        return
    if frame["lambda_given"].nunique() > 1:
        for (_, row), edge in zip(best.iterrows(), at_edge(frame, best, column), strict=True):
            if row["layer_set"] in measured.styles:
                yield Mark(row["lambda_given"], row[column], Sign.AT_EDGE if edge else Sign.OWN_BEST)
    top = best_of_all(frame, best, column)
    yield Mark(top["lambda_given"], top[column], Sign.BEST)


def _says(measured: Measured, rows: pd.DataFrame, frames: list[tuple[Variant, pd.DataFrame]]) -> str:
    column = "finetune_eval_loss" if measured.trained else "eval_loss"
    whose = "fine-tuned model" if measured.trained else "ridge solution (the linearized model, nothing trained)"
    found = [best_rows(frame, column) for _, frame in frames]
    n_edge = sum(int(at_edge(frame, best, column).sum()) for (_, frame), best in zip(frames, found, strict=True))
    n = sum(map(len, found))
    _, frame = frames[0]
    if found[0].empty:
        return "Each line is a layer set."
    top = best_of_all(frame, found[0], column)
    place = f" on {frames[0][0].title}" if frames[0][0].title else ""
    text = (
        f"The smallest loss of the {whose}{place} is {top[column]:.4g}, with {top['layer_set']} at λ = "
        f"{top['lambda_given']:.3g}. "
    )
    if frame["lambda_given"].nunique() == 1:
        return text + "The grid has one λ only, so that nothing says whether another would be better."
    if n_edge:
        verb = "is" if n_edge == 1 else "are"
        return (
            text + f"Of {n} lines, {n_edge} {verb} best at the edge of the grid: there, a λ beyond the edge may be "
            "better still."
        )
    return (
        text + "No layer set asks for a λ beyond the grid: each is best inside of it, or its loss hardly depends on λ."
    )


def _note(measured: Measured, rows: pd.DataFrame) -> str:
    drawn = rows["layer_set"].nunique()
    seeds = int(rows["n_seeds"].max())
    parts = [
        f"Lines are means over {seeds} seeds, bands reach from the lowest to the highest seed." if seeds > 1 else
        "There is one seed: nothing here says how much another seed would change.",
        measured.about_lines,
        "" if drawn == len(measured.layer_sets) else
        f"Drawn are the {drawn} best of {len(measured.layer_sets)} layer sets.",
        measured.left_out,
    ]  # fmt: skip
    return " ".join(filter(None, parts))
