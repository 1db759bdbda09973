"""What adding a layer does to a kernel, beside what bounds it."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ntk_dist.arrays import FloatArray
from orchestrator.results.pictures.measured import VARIANT, Measured, Variant
from orchestrator.results.pictures.picture import Form, Missing, Panel, Picture, Rule, Series, names, numbers

KIND, TITLE = "additions", "Adding a layer"

SHOWN = 24
"""Additions of a panel, those that change the condition number most."""

_COLUMNS = {
    "sigma_max": ("sigma_max_lower", "sigma_max_upper", "sigma_max_first_order"),
    "condition_number": (None, "condition_number_upper", "condition_number_first_order"),
}


def picture(measured: Measured) -> Picture | Missing:
    """Return the picture of sweeps with `kernel.additions`."""
    if "additions" not in measured.tables.paths:
        return Missing(KIND, TITLE, "The spec does not ask for it: kernel.additions is false.")
    columns = [
        *VARIANT, "seed", "layer_set", "added_layer", "kernel_condition_number", "kernel_sigma_max", *_COLUMNS,
        *(name for bounds in _COLUMNS.values() for name in bounds if name),
    ]  # fmt: skip
    table = measured.table("additions", columns)
    frames: list[pd.DataFrame] = []
    panels: list[Panel] = []
    first_row = 0
    for variant in measured.variants:
        frame = _frame(variant, table)
        if len(frame):
            frames.append(frame)
            panels.extend(_panels(variant, frame, first_row))
            first_row += len(frame)
    if not frames:
        return Missing(KIND, TITLE, "No addition is finished yet.")
    rows = pd.concat(frames, ignore_index=True)
    lowered = int((table["condition_number"] < table["kernel_condition_number"]).sum())
    says = (
        f"{lowered} of {len(table)} additions lower the condition number. All numbers are divided by what the kernel "
        "had before the layer was added: 1 means no change. Bars are what is proven, points what was measured, hollow "
        "points what is predicted to first order; a bar that hardly exceeds its point is a tight bound."
    )
    drawn = (
        f"Drawn are the {len(rows)} additions that change the condition number most. "
        if len(rows) < _n_pairs(table)
        else ""
    )
    note = (
        f"{drawn}Geometric means over seeds. Nothing bounds the condition number from below but 0. {measured.left_out}"
    )
    return Picture(KIND, TITLE, says, tuple(panels), rows, across=2, note=note.strip())


def _n_pairs(table: pd.DataFrame) -> int:
    return len(table.drop_duplicates([*VARIANT, "layer_set", "added_layer"]))


def _frame(variant: Variant, table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each addition that is drawn: geometric means over seeds, divided by what was there before."""
    rows = variant.choose(table)
    if rows.empty:
        return rows
    ratios = rows[["layer_set", "added_layer"]].copy()
    for name, bounds in _COLUMNS.items():
        for column in (name, *filter(None, bounds)):
            values = rows[column].replace(np.inf, np.nan) / rows[f"kernel_{name}"]
            ratios[column] = np.log(values.where(values > 0))
    means = ratios.groupby(["layer_set", "added_layer"], sort=False).mean()
    change = means["condition_number"].abs().sort_values(ascending=False, kind="stable")
    shown = means.loc[change.index[:SHOWN]].sort_values("condition_number", kind="stable")
    found = shown.apply(np.exp).reset_index()
    return variant.put_first(found)


def _panels(variant: Variant, frame: pd.DataFrame, first_row: int) -> Iterator[Panel]:
    labels = [f"{name} + {layer}" for name, layer in zip(frame["layer_set"], frame["added_layer"], strict=True)]
    y = names("addition", "layer set + layer", labels)
    places = np.arange(len(frame), dtype=np.float64)
    titles = {"sigma_max": "largest eigenvalue", "condition_number": "condition number"}
    for name, (lower, upper, predicted) in _COLUMNS.items():
        measured = frame[name].to_numpy()
        low = frame[lower].to_numpy() if lower else measured
        high = frame[str(upper)].to_numpy()
        hollow = np.ones(len(frame), dtype=bool)
        series = (
            Series("measured, with its proven bounds", 0, measured, places, first_row, Form.POINTS, low=low, high=high),
            Series(
                "predicted to first order",
                1,
                frame[str(predicted)].to_numpy(),
                places,
                first_row,
                Form.POINTS,
                hollow=hollow,
            ),
        )
        values: list[FloatArray] = [measured, low, high, frame[str(predicted)].to_numpy(), np.array([1.0])]
        x = numbers(titles[name], "ratio to before", values, log=True)
        yield Panel(variant.titled(titles[name]), x, y, series, (Rule(1.0, "no change", upright=True),))
