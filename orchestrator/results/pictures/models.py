"""Ridge, linearized and fine-tuned, side by side for every layer set."""

import numpy as np
import pandas as pd
from scipy.stats import t as student

from orchestrator.results.least import LEAST_SEEDS
from orchestrator.results.pictures.lambda_path import METRIC_NAMES, best_rows
from orchestrator.results.pictures.measured import Measured, Variant, over_seeds
from orchestrator.results.pictures.picture import Form, Missing, Panel, Picture, Rule, Series, names, numbers

KIND, TITLE = "models", "Ridge, linearized and fine-tuned"

MOST_SETS = 30
"""Layer sets of a panel; more lines could not be told apart."""

_MODELS = {"": "ridge solution", "linearized_": "trained linearization", "finetune_": "fine-tuned"}


def picture(measured: Measured) -> Picture | Missing:
    """Return the picture of every sweep that has cells."""
    frames, panels, first_row = [], [], 0
    for variant in measured.variants:
        frame = _frame(measured, variant)
        if len(frame):
            frames.append(frame)
            panels.append(_panel(measured, variant, frame, first_row))
            first_row += len(frame)
    if not frames:
        return Missing(KIND, TITLE, "No cell of the sweep is finished yet.")
    rows = pd.concat(frames, ignore_index=True)
    return Picture(KIND, TITLE, _says(measured), tuple(panels), rows, across=2, note=_note(measured, rows))


def _frame(measured: Measured, variant: Variant) -> pd.DataFrame:
    """Return a row for each model and layer set, at the lambda where that model's mean loss is smallest."""
    cells = variant.choose(measured.cells)
    shown = [name for name in measured.layer_sets if name in set(measured.ranking[:MOST_SETS])]
    parts = []
    for prefix, model in _MODELS.items():
        metric, loss = f"{prefix}eval_{variant.metric}", f"{prefix}eval_loss"
        if cells[metric].notna().any():
            best = best_rows(over_seeds(cells, ["layer_set", "lambda_given"], [metric, loss]), loss)
            at_best = best[["layer_set", "lambda_given"]].merge(cells, on=["layer_set", "lambda_given"])
            values = at_best.groupby("layer_set", sort=False)[metric]
            part = pd.DataFrame({"mean": values.mean(), "n_seeds": values.count(), "deviation": values.std()})
            part = part.assign(lowest=values.min(), highest=values.max(), model=model).reset_index()
            part = part.merge(best[["layer_set", "lambda_given"]], on="layer_set")
            part = part.set_index("layer_set").reindex(shown).dropna(subset=["mean"]).reset_index()
            parts.append(_with_ends(part))
    if not parts:
        return pd.DataFrame()
    return variant.put_first(pd.concat(parts, ignore_index=True))


def _with_ends(part: pd.DataFrame) -> pd.DataFrame:
    """Return rows with `low` and `high`: a 95 % Student interval of the mean of enough seeds, or the range."""
    n = part["n_seeds"].to_numpy()
    half = student.ppf(0.975, np.maximum(n - 1, 1)) * part["deviation"] / np.sqrt(n)
    enough = n >= LEAST_SEEDS
    low = np.where(enough, part["mean"] - half, part["lowest"])
    high = np.where(enough, part["mean"] + half, part["highest"])
    columns = ["layer_set", "model", "lambda_given", "n_seeds", "mean"]
    return part[columns].assign(low=low, high=high)


def _panel(measured: Measured, variant: Variant, frame: pd.DataFrame, first_row: int) -> Panel:
    shown = [name for name in measured.layer_sets if name in set(frame["layer_set"])]
    present = [model for model in _MODELS.values() if model in set(frame["model"])]
    series = []
    for model, rows in frame.groupby("model", sort=False):
        style = list(_MODELS.values()).index(str(model))
        # beside each other within the place of a layer set
        shift = 0.26 * (present.index(str(model)) - (len(present) - 1) / 2)
        y = rows["layer_set"].map(shown.index).to_numpy(dtype=np.float64) + shift
        several = rows["n_seeds"].max() > 1
        series.append(
            Series(
                str(model), style, rows["mean"].to_numpy(), y, first_row + int(rows.index[0]), Form.POINTS,
                low=rows["low"].to_numpy() if several else None, high=rows["high"].to_numpy() if several else None,
            )
        )  # fmt: skip
    cells = variant.choose(measured.cells)
    rules = []
    if variant.metric == "accuracy" and cells["majority_accuracy"].notna().any():
        rules.append(Rule(float(cells["majority_accuracy"].mean()), "majority baseline", upright=True))
    before = cells[f"initial_eval_{variant.metric}"]
    if before.notna().any():
        rules.append(Rule(float(before.mean()), "before fine-tuning", upright=True))
    label, unit = METRIC_NAMES[variant.metric]
    ends = [frame[name].to_numpy() for name in ("mean", "low", "high")]
    x = numbers(label, unit, [*ends, np.array([rule.value for rule in rules])])
    title = variant.title or f"{label} on evaluation examples".capitalize()
    return Panel(title, x, names("layer set", "name", shown), tuple(series), tuple(_apart(rules)))


def _apart(rules: list[Rule]) -> list[Rule]:
    """Return rules whose labels do not hide each other: of two that nearly coincide one label says both."""
    if len(rules) == 2 and abs(rules[0].value - rules[1].value) < 0.04:
        return [
            Rule(rules[0].value, " / ".join(rule.label for rule in rules), upright=True),
            Rule(rules[1].value, "", upright=True),
        ]
    return rules


def _says(measured: Measured) -> str:
    if not measured.trained:
        return (
            "Nothing was trained: the points are ridge solutions, each at the λ with the smallest loss. Points left of "
            "the dashed lines do no better than no fine-tuning, or than the majority baseline."
        )
    return (
        "Where the three points of a layer set lie together, the linearized model tells what fine-tuning ends with. A "
        "fine-tuned point far to the right is a gain that comes from leaving the linear regime."
    )


def _note(measured: Measured, rows: pd.DataFrame) -> str:
    least, most = int(rows["n_seeds"].min()), int(rows["n_seeds"].max())
    seeds = f"{most}" if least == most else f"{least} to {most}"
    n_train = ", ".join(f"{int(n):,}" for n in rows["n_train"].unique())
    ends = (
        f"bars are 95 % intervals of the mean (Student's t), or the range of fewer than {LEAST_SEEDS} seeds."
        if most >= LEAST_SEEDS
        else "there is one seed, and so no bar."
        if most == 1
        else f"bars reach from the lowest to the highest seed; fewer than {LEAST_SEEDS} give no meaningful interval."
    )
    drawn = rows["layer_set"].nunique()
    cut = f"The {drawn} best of {len(measured.layer_sets)} layer sets. " if drawn < len(measured.layer_sets) else ""
    counted = f"n = {n_train} training examples, {seeds} seed{'' if most == 1 else 's'}"
    return f"{cut}{counted}; {ends} Each model at its own best λ. {measured.left_out}".strip()
