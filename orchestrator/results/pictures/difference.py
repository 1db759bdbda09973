"""How far the linearization is from the fine-tuned model, and what bounds that, against lambda."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from orchestrator.results.pictures.measured import Measured, Variant
from orchestrator.results.pictures.picture import Missing, Panel, Picture, Rule, Series, numbers
from orchestrator.results.tables.correlations import LINEAR_UP_TO

KIND, TITLE = "difference", "Where the linearization holds"

_DIFFERENCE = "difference_eval_relative"
_ERROR = {
    "finetune_linearization_error": ("error, all layer sets", 6),
    "finetune_linearization_bound": ("its bound (b/2)|θ − θ₀|²", 7),
}
_ALL = "all layer sets"


def picture(measured: Measured) -> Picture | Missing:
    """Return the picture of sweeps whose cells were trained."""
    if not measured.trained or not measured.cells[_DIFFERENCE].notna().any():
        return Missing(KIND, TITLE, "Nothing was trained, so that there is nothing to hold the linearization against.")
    frames: list[pd.DataFrame] = []
    panels: list[Panel] = []
    first_row = 0
    for variant in measured.variants:
        frame = _frame(measured, variant)
        if len(frame):
            frames.append(frame)
            panels.extend(_panels(measured, variant, frame, first_row))
            first_row += len(frame)
    rows = pd.concat(frames, ignore_index=True)
    held = _held(measured)
    says = (
        "f is the fine-tuned model, f_lin its linearization, trained alike. Below the dashed line they differ by a "
        "tenth at most: there the kernel describes fine-tuning. A larger λ holds the weights nearer and brings both "
        "together."
    )
    if held:
        says += f" {held}"
    note = (
        "Left: geometric means over seeds, a line a layer set. Right: the error |f(θ) − f(θ₀) − J(θ − θ₀)| of a few "
        "training examples, geometric mean over layer sets and seeds; the band holds all of them. b is the largest "
        f"curvature that was seen at a few places, so that the bound is an estimate. {measured.about_lines} "
        f"{measured.left_out}"
    )
    return Picture(KIND, TITLE, says, tuple(panels), rows, across=2, note=" ".join(note.split()))


def _held(measured: Measured) -> str:
    error, bound = (measured.cells[column] for column in _ERROR)
    known = error.notna() & bound.notna()
    if not known.any():
        return ""
    share = (error[known] <= bound[known]).mean()
    return f"The error stays within its bound in {100 * share:.0f} % of {int(known.sum()):,} cells."


def _frame(measured: Measured, variant: Variant) -> pd.DataFrame:
    """Return a row for each layer set and lambda with the difference, then one for each lambda with error and bound."""
    cells = variant.choose(measured.cells)
    n_lambdas = cells["lambda_given"].nunique()
    shown = measured.best_sets((n_lambdas + 1) * len(measured.variants))
    of_sets = cells[cells["layer_set"].isin(shown)]
    order = {name: position for position, name in enumerate(measured.layer_sets)}
    differences = _geometric(of_sets, ["layer_set", "lambda_given"], [_DIFFERENCE])
    differences["place"] = differences["layer_set"].map(order)
    differences = differences.sort_values(["place", "lambda_given"], kind="stable").drop(columns="place")
    errors = _geometric(cells, ["lambda_given"], list(_ERROR)).assign(layer_set=_ALL).sort_values("lambda_given")
    return variant.put_first(pd.concat([differences, errors], ignore_index=True))


def _geometric(cells: pd.DataFrame, by: list[str], columns: list[str]) -> pd.DataFrame:
    """Return geometric means of positive numbers, with the smallest and the largest."""
    logs = cells[columns].where(cells[columns] > 0).apply(np.log)
    groups = logs.assign(**{name: cells[name] for name in by}).groupby(by, sort=False)[columns]
    parts = {}
    for column in columns:
        parts[column] = np.exp(groups.mean()[column])
        parts[f"{column}_low"], parts[f"{column}_high"] = np.exp(groups.min()[column]), np.exp(groups.max()[column])
    return pd.DataFrame(parts).reset_index()


def _panels(measured: Measured, variant: Variant, frame: pd.DataFrame, first_row: int) -> Iterator[Panel]:
    lambdas = frame["lambda_given"].to_numpy()
    x = numbers("λ", measured.lambda_unit, [lambdas], log=bool((lambdas > 0).all()))
    of_sets = frame[frame["layer_set"] != _ALL]
    several = measured.n_seeds > 1
    lines = tuple(
        Series(
            name, style, rows["lambda_given"].to_numpy(), rows[_DIFFERENCE].to_numpy(), first_row + int(rows.index[0]),
            low=rows[f"{_DIFFERENCE}_low"].to_numpy() if several and style is not None else None,
            high=rows[f"{_DIFFERENCE}_high"].to_numpy() if several and style is not None else None,
            faint=name != measured.ranking[0],
        )
        for name, style, rows in measured.lines_of(of_sets)
    )  # fmt: skip
    ends = [of_sets[_DIFFERENCE].to_numpy(), np.array([LINEAR_UP_TO])]
    y = numbers("|f − f_lin| / |f|", "ratio, evaluation", ends, log=True)
    yield Panel(variant.titled("difference"), x, y, lines, (Rule(LINEAR_UP_TO, f"linear up to {LINEAR_UP_TO:g}"),))
    errors = frame[frame["layer_set"] == _ALL]
    bounds = tuple(
        Series(
            label, style, errors["lambda_given"].to_numpy(), errors[column].to_numpy(),
            first_row + int(errors.index[0]), low=errors[f"{column}_low"].to_numpy(),
            high=errors[f"{column}_high"].to_numpy(), faint=True,
        )
        for column, (label, style) in _ERROR.items()
        if errors[column].notna().any()
    )  # fmt: skip
    if bounds:
        y = numbers("error and bound", "unit of the outputs", [each.y for each in bounds], log=True)
        yield Panel(variant.titled("error and its bound"), x, y, bounds)
