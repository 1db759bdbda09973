"""The page that a report opens with: what was swept, and what the tables beside it say."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.report.linearity import VARIANT
from orchestrator.spec import Spec

SMALL_DIFFERENCE = 0.1
"""|f - f_lin| / |f| up to which the page says that the linearized model describes fine-tuning."""

QUANTITIES = (
    "condition_number_fixed_sigma", "condition_number_relative_sigma", "effective_rank", "label_alignment", "trace",
    "n_parameters", "gcv", "leave_one_out_loss", "eval_loss", "linearized_eval_loss",
)  # fmt: skip
"""What the page correlates with the outcome; the table has more."""

OUTCOME = "finetune_eval_loss"


@dataclass(frozen=True)
class Findings:
    """The tables that a page is written from.

    Attributes:
        spec: the spec of the sweep.
        n_cells, n_diverged: trained cells, and how many of them diverged.
        n_never_pulled: those in which lambda never acted on the trained model.
        linearity: see `orchestrator.report.linearity`.
        correlations: the table `correlations`.
        choices: see `orchestrator.report.choices`.
        provenance: lines about code and machine.
    """

    spec: Spec
    n_cells: int
    n_diverged: int
    n_never_pulled: int
    linearity: pd.DataFrame
    correlations: pd.DataFrame
    choices: pd.DataFrame
    provenance: Sequence[str]


def page(found: Findings) -> str:
    """Return the page in Markdown."""
    return (
        "\n".join([*_head(found), *_linearity(found), *_correlations(found), *_choices(found), *_notes(found)]) + "\n"
    )


def _head(found: Findings) -> Iterator[str]:
    spec = found.spec
    yield f"# {spec.name}: what was found"
    yield ""
    yield (
        f"{found.n_cells} trained cells of {spec.model.path}, {found.n_diverged} of which diverged. Means are over "
        "layer sets and seeds, brackets hold 95 % intervals: percentiles of 1000 draws of layer sets and seeds with "
        "replacement. The spec is in `spec.yaml`, all numbers in the tables beside this page."
    )
    yield ""
    if found.n_never_pulled:
        yield (
            f"In {found.n_never_pulled} of the trained cells λ never acted on the fine-tuned model (`finetune_pulled` "
            "is 0): they would have ended alike with any other λ."
        )
        yield ""


def _linearity(found: Findings) -> Iterator[str]:
    yield "## Does the linearized model describe fine-tuning?"
    yield ""
    yield (
        "f is the fine-tuned model, f_lin its linearization trained in the same way, both on evaluation examples. The "
        "error is |f(θ) − f(θ_0) − J (θ − θ_0)| at the fine-tuned weights, on a few training examples; rate is the "
        "slope of its logarithm against that of λ, from the λ before."
    )
    yield ""
    for names, rows in _by_variant(found.linearity):
        yield f"### {names}"
        yield ""
        yield from _table(_linearity_columns(rows), rows)
        yield ""
        yield _threshold(rows)
        yield ""


def _linearity_columns(rows: pd.DataFrame) -> dict[str, tuple[str, bool]]:
    metric = (
        "accuracy" if "finetune_eval_accuracy" in rows and rows["finetune_eval_accuracy"].notna().any() else "pearson"
    )
    columns = {
        "λ": ("lambda_given", False),
        "\\|f − f_lin\\| / \\|f\\|": ("difference_eval_relative", True),
        "of the change": ("difference_eval_relative_to_change", True),
        "error": ("finetune_linearization_error", True),
        "rate": ("rate", False),
        "(b/2)\\|θ − θ_0\\|²": ("finetune_linearization_bound", False),
        "\\|θ − θ_0\\|": ("finetune_distance", False),
        f"{metric} of f": (f"finetune_eval_{metric}", True),
        f"{metric} of f_lin": (f"linearized_eval_{metric}", True),
    }
    return {heading: column for heading, column in columns.items() if column[0] in rows}


def _threshold(rows: pd.DataFrame) -> str:
    close = rows["difference_eval_relative_high"] <= SMALL_DIFFERENCE
    majority = rows["majority_accuracy"].iloc[0] if "majority_accuracy" in rows else None
    always = "" if majority is None or pd.isna(majority) else f" Always saying the commonest class: {majority:.3f}."
    before = rows["initial_eval_accuracy"].iloc[0] if "initial_eval_accuracy" in rows else None
    started = "" if before is None or pd.isna(before) else f" Before fine-tuning: {before:.3f}."
    if not close.any():
        says = f"At no λ of the grid is |f − f_lin| / |f| below {SMALL_DIFFERENCE:g} with its whole interval."
    else:
        # From where on it holds for every larger lambda as well.
        from_here = rows["lambda_given"][close[::-1].cummin()[::-1]]
        says = (
            f"|f − f_lin| / |f| is below {SMALL_DIFFERENCE:g}, interval included, from λ = {from_here.min():.3g} on."
            if len(from_here)
            else f"|f − f_lin| / |f| is below {SMALL_DIFFERENCE:g} at some λ, but not at the largest."
        )
    return says + started + always


def _correlations(found: Findings) -> Iterator[str]:
    table = found.correlations[found.correlations["outcome"] == OUTCOME]
    yield "## Does the spectrum at the pretrained point tell which layers to adapt?"
    yield ""
    yield (
        "Spearman correlation across layer sets of what is known before fine-tuning with the evaluation loss after it, "
        "at the smallest, a middle and the largest λ. A positive one means that layer sets with a larger number end "
        "worse. In bold where the interval leaves out 0."
    )
    yield ""
    for names, rows in _by_variant(table):
        lambdas = sorted(rows["lambda_given"].unique())
        chosen = [lambdas[0], lambdas[len(lambdas) // 2], lambdas[-1]]
        yield f"### {names}"
        yield ""
        yield f"| known before | {' | '.join(f'λ = {strength:.3g}' for strength in chosen)} |"
        yield f"| --- |{' ---: |' * len(chosen)}"
        for quantity in QUANTITIES:
            of_quantity = rows[rows["quantity"] == quantity].set_index("lambda_given")
            if len(of_quantity):
                cells = [_coefficient(of_quantity.loc[strength], "spearman") for strength in chosen]
                yield f"| `{quantity}` | {' | '.join(cells)} |"
        yield ""
    yield _count(table)
    yield ""


def _count(table: pd.DataFrame) -> str:
    known = table[table["spearman"].notna() & table["spearman_low"].notna()]
    away = int(((known["spearman_low"] > 0) | (known["spearman_high"] < 0)).sum())
    partial = table[table["partial_spearman"].notna() & table["partial_spearman_low"].notna()]
    left = int(((partial["partial_spearman_low"] > 0) | (partial["partial_spearman_high"] < 0)).sum())
    return (
        f"Over all tasks, λ and quantities, {away} of {len(known)} intervals of the Spearman correlation leave out 0, "
        f"and {left} of {len(partial)} given the number of parameters; of quantities that tell nothing about one in "
        "twenty would, and neighbouring λ repeat each other."
    )


def _choices(found: Findings) -> Iterator[str]:
    yield "## What would choosing by it have cost?"
    yield ""
    yield (
        "By how much the evaluation loss after fine-tuning of the chosen layer set exceeds that of the best one, on "
        "average over λ; 0 is perfect. `random` is the mean over all layer sets, `all` the largest, `last` the highest "
        "single layer."
    )
    yield ""
    choices = found.choices
    means = choices.groupby([*VARIANT, "chosen_by"], sort=False, dropna=False)["excess_loss"].mean().reset_index()
    columns = [names for names, _ in _by_variant(means)]
    yield f"| chosen by | {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * len(columns)}"
    for way in means["chosen_by"].unique():
        cells = [
            f"{float(rows.loc[rows['chosen_by'] == way, 'excess_loss'].iloc[0]):.4f}" for _, rows in _by_variant(means)
        ]
        yield f"| {way} | {' | '.join(cells)} |"
    yield ""


def _notes(found: Findings) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    yield from (f"- {line}" for line in found.provenance)
    yield (
        "- `cells.parquet` and `correlations.parquet` are tables of the sweep, `linearity.csv` and `choices.csv` what "
        "this page is made of, ready to be plotted. What the intervals cover, and what they do not: docs/numbers.md, "
        "Correlations."
    )


def _by_variant(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each task, rank, learning rate and training-set size, with a name of what varies."""
    varying = [name for name in VARIANT if name == "task" or frame[name].nunique(dropna=False) > 1]
    for _, rows in frame.groupby(VARIANT, sort=False, dropna=False):
        first = rows.iloc[0]
        yield ", ".join(_named(name, first[name]) for name in varying), rows


def _named(name: str, value: Any) -> str:
    labels = {"task": "", "adapter_rank": "rank ", "learning_rate": "learning rate ", "n_train": "n = "}
    return f"{labels[name]}{value if isinstance(value, str) else format(value, 'g')}"


def _table(columns: dict[str, tuple[str, bool]], rows: pd.DataFrame) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + " ---: |" * len(columns)
    for _, row in rows.iterrows():
        cells = [_number(row, name, with_interval=with_interval) for name, with_interval in columns.values()]
        yield f"| {' | '.join(cells)} |"


def _number(row: "pd.Series[Any]", name: str, *, with_interval: bool) -> str:
    if pd.isna(row[name]):
        return "-"
    if not with_interval:
        return f"{row[name]:.3g}"
    return f"{row[name]:.3g} [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]"


def _coefficient(row: "pd.Series[Any]", name: str) -> str:
    if pd.isna(row[name]):
        return "-"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    text = f"{row[name]:.2f} [{low:.2f}, {high:.2f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
