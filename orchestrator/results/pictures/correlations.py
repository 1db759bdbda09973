"""Correlations of kernels with the outcome of fine-tuning against lambda, by regime."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from orchestrator.results.least import too_few
from orchestrator.results.pictures.kernel_numbers import NAMES
from orchestrator.results.pictures.measured import KERNEL, VARIANT, Measured, Variant
from orchestrator.results.pictures.picture import Axis, Missing, Panel, Picture, Rule, Scale, Series, numbers
from orchestrator.results.tables.correlations import LINEAR_UP_TO, REGIMES

KIND, TITLE = "correlations", "Kernel and fine-tuning, λ by λ"

OUTCOME = "finetune_eval_loss"

_ENDS = ("spearman", "spearman_low", "spearman_high")


def picture(measured: Measured) -> Picture | Missing:
    """Return the picture of sweeps that have the table `correlations`."""
    if not measured.trained:
        return Missing(KIND, TITLE, "Nothing was trained: there is no outcome of fine-tuning to correlate with.")
    columns = [*VARIANT, "lambda_given", "regime", "quantity", "n_layer_sets", "n_seeds", *_ENDS]
    where = (pc.field("outcome") == OUTCOME) & pc.field("quantity").isin(list(KERNEL))
    table = measured.table("correlations", columns, where).dropna(subset=["spearman"])
    frames, panels, first_row = [], [], 0
    for variant in measured.variants:
        for regime in REGIMES:
            frame = _frame(variant, table, regime)
            if len(frame):
                frames.append(frame)
                panels.append(_panel(measured, variant, frame, regime, first_row))
                first_row += len(frame)
    if not frames:
        return Missing(KIND, TITLE, "No λ has three layer sets that were trained with every seed.")
    says = (
        "Above 0, layer sets with a larger number end with a larger loss; below 0, with a smaller one. A band that "
        "holds 0 shows nothing. Regimes are kept apart: linear is where |f − f_lin| / |f| of a layer set is at most "
        f"{LINEAR_UP_TO:g} at that λ."
    )
    note = f"Bands are 95 % intervals over layer sets and seeds; neighboring λ repeat each other. {measured.left_out}"
    rows = pd.concat(frames, ignore_index=True)
    few = too_few(seeds=int(rows["n_seeds"].min()), layer_sets=int(rows["n_layer_sets"].min()))
    return Picture(KIND, TITLE, says, tuple(panels), rows, across=3, note=f"{note} {few}".strip())


def _frame(variant: Variant, table: pd.DataFrame, regime: str) -> pd.DataFrame:
    rows = variant.choose(table)
    rows = rows[rows["regime"] == regime].assign(place=lambda frame: frame["quantity"].map(list(KERNEL).index))
    return rows.sort_values(["place", "lambda_given"], kind="stable", ignore_index=True).drop(columns="place")


def _panel(measured: Measured, variant: Variant, frame: pd.DataFrame, regime: str, first_row: int) -> Panel:
    series = tuple(_lines(frame, first_row))
    lambdas = measured.cells["lambda_given"].to_numpy()
    x = numbers("λ", measured.lambda_unit, [lambdas], log=bool((lambdas > 0).all()))
    y = Axis("Spearman with the loss", "coefficient", Scale.LINEAR, -1.08, 1.08)
    name = {"all": "all layer sets", "linear": "linear regime", "nonlinear": "nonlinear regime"}[regime]
    least, most = int(frame["n_layer_sets"].min()), int(frame["n_layer_sets"].max())
    counted = f"{most} sets" if least == most else f"{least} to {most} sets"
    return Panel(variant.titled(f"{name}, {counted}"), x, y, series, (Rule(0.0, ""),))


def _lines(frame: pd.DataFrame, first_row: int) -> Iterator[Series]:
    for quantity, rows in frame.groupby("quantity", sort=False):
        style = KERNEL.index(str(quantity))
        low, high = (rows[name].to_numpy(dtype=np.float64) for name in _ENDS[1:])
        yield Series(
            NAMES[str(quantity)][0], style, rows["lambda_given"].to_numpy(), rows["spearman"].to_numpy(),
            first_row + int(rows.index[0]), low=low, high=high,
        )  # fmt: skip
