"""Loss and metric of every layer set and lambda, as colors."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from orchestrator.results.pictures.lambda_path import LOSS_NAME, METRIC_NAMES, best_of_all, best_rows, outcomes, path_of
from orchestrator.results.pictures.measured import Measured, Variant
from orchestrator.results.pictures.numerals import plain
from orchestrator.results.pictures.picture import Grid, Mark, Missing, Panel, Picture, Sign, names, spread

KIND, TITLE = "heatmap", "Every layer set and λ"


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
    drawn = rows["layer_set"].nunique()
    cut = "" if drawn == len(measured.layer_sets) else f"Shown are the {drawn} best layer sets. "
    says = (
        "Dark is good. A column that is dark from top to bottom is a λ that suits all layer sets; a dark row is a "
        "layer set that works with many λ. The outlined cell is the best."
    )
    return Picture(KIND, TITLE, says, tuple(panels), rows, note=(cut + measured.left_out).strip())


def _panels(measured: Measured, variant: Variant, frame: pd.DataFrame, first_row: int) -> Iterator[Panel]:
    lambdas = np.unique(frame["lambda_given"])
    layer_sets = [str(name) for name in frame["layer_set"].unique()]
    columns = np.searchsorted(lambdas, frame["lambda_given"])
    lines = frame["layer_set"].map({name: place for place, name in enumerate(layer_sets)}).to_numpy()
    x = names("λ", measured.lambda_unit, [plain(value) for value in lambdas])
    y = names("layer set", "name", layer_sets)
    for whose, column in outcomes(measured, variant):
        is_loss = column.endswith("loss")
        label, unit = LOSS_NAME if is_loss else METRIC_NAMES[variant.metric]
        values = frame[column].to_numpy()
        grid = Grid(columns, lines, values, first_row, f"{label} ({unit})", is_loss and spread(values), is_loss)
        best = best_rows(frame, column)
        marks: tuple[Mark, ...] = ()
        if len(best):
            place = frame.index.get_loc(best_of_all(frame, best, column).name)
            marks = (Mark(float(columns[place]), float(lines[place]), Sign.BEST),)
        what = "loss" if is_loss else label
        title = variant.titled(f"{whose}, {what}")
        yield Panel(title, x, y, marks=marks, grid=grid)
