"""Losses while the best cell was trained, the model and its linearization beside each other."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from orchestrator.results.pictures.lambda_path import LOSS_NAME, best_rows
from orchestrator.results.pictures.measured import VARIANT, Measured, Variant, over_seeds
from orchestrator.results.pictures.picture import MOST_ROWS, Missing, Panel, Picture, Series, numbers, spread

KIND, TITLE = "trajectories", "How training went"

_LINES = {
    "finetune_train_loss": ("fine-tuned, training examples", 0),
    "finetune_eval_loss": ("fine-tuned, evaluation examples", 1),
    "linearized_train_loss": ("linearized, training examples", 2),
    "linearized_eval_loss": ("linearized, evaluation examples", 3),
}


def picture(measured: Measured) -> Picture | Missing:
    """Return the picture of sweeps whose cells were trained."""
    if not measured.trained:
        return Missing(KIND, TITLE, "Nothing was trained: the spec has no section `finetune`.")
    if "trajectories" not in measured.tables.paths:
        return Missing(KIND, TITLE, "The table `trajectories` is not there.")
    frames, panels, first_row = [], [], 0
    for variant in measured.variants:
        for layer_set, strength in _shown(measured, variant):
            frame = _frame(measured, variant, layer_set, strength)
            if len(frame):
                frames.append(frame)
                panels.append(_panel(variant, frame, first_row))
                first_row += len(frame)
    if not frames:
        return Missing(KIND, TITLE, "No training has been evaluated yet.")
    says = (
        "Lines of the model and of its linearization that stay together say that training stayed in the linear regime; "
        "where they part, training left it. An evaluation loss that rises while the training loss falls is overfitting."
    )
    note = (
        "Left the cell with the smallest fine-tuned loss, then the same layer set at the smallest and the largest λ; "
        f"means over seeds, bands from the lowest to the highest. {measured.left_out}"
    )
    rows = pd.concat(frames, ignore_index=True)
    return Picture(KIND, TITLE, says, tuple(panels), rows, across=3, note=note.strip())


def _shown(measured: Measured, variant: Variant) -> list[tuple[str, float]]:
    """Return the best cell, and the smallest and largest lambda of its layer set."""
    found = over_seeds(variant.choose(measured.cells), ["layer_set", "lambda_given"], ["finetune_eval_loss"])
    best = best_rows(found, "finetune_eval_loss")
    if best.empty:
        return []
    top = best.iloc[int(best["finetune_eval_loss"].to_numpy().argmin())]
    lambdas = found.loc[found["layer_set"] == top["layer_set"], "lambda_given"]
    chosen = dict.fromkeys((float(top["lambda_given"]), float(lambdas.min()), float(lambdas.max())))
    return [(str(top["layer_set"]), strength) for strength in chosen]


def _frame(measured: Measured, variant: Variant, layer_set: str, strength: float) -> pd.DataFrame:
    columns = [*VARIANT, "layer_set", "lambda_given", "seed", "step", *_LINES]
    where = (pc.field("layer_set") == layer_set) & (pc.field("lambda_given") == strength)
    found = variant.choose(measured.table("trajectories", columns, where))
    means = over_seeds(found, ["layer_set", "lambda_given", "step"], [name for name in _LINES if name in found])
    means = means.sort_values("step", kind="stable", ignore_index=True)
    most = MOST_ROWS // (3 * len(measured.variants))
    if means.empty:
        return means
    chosen = np.unique(np.linspace(0, len(means) - 1, min(len(means), most)).round().astype(int))
    return variant.put_first(means.iloc[chosen].reset_index(drop=True))


def _panel(variant: Variant, frame: pd.DataFrame, first_row: int) -> Panel:
    series = tuple(_lines(frame, first_row))
    values = [each.y for each in series] + [end for each in series for end in (each.low, each.high) if end is not None]
    x = numbers("updates", "steps", [frame["step"].to_numpy(dtype=np.float64)])
    y = numbers(*LOSS_NAME, values, log=spread(np.concatenate(values)))
    place = f"{frame['layer_set'].iloc[0]}, λ = {frame['lambda_given'].iloc[0]:.3g}"
    return Panel(f"{variant.title}: {place}" if variant.title else place, x, y, series)


def _lines(frame: pd.DataFrame, first_row: int) -> Iterator[Series]:
    for column, (name, style) in _LINES.items():
        if column in frame and frame[column].notna().any():
            banded = frame["n_seeds"].max() > 1
            yield Series(
                name, style, frame["step"].to_numpy(dtype=np.float64), frame[column].to_numpy(), first_row,
                low=frame[f"{column}_low"].to_numpy() if banded else None,
                high=frame[f"{column}_high"].to_numpy() if banded else None,
            )  # fmt: skip
