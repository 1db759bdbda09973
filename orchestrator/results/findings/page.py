"""The first page of a report: the grid of the sweep, and a summary of the tables beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.literal import printable
from orchestrator.results.findings.linearity import VARIANT
from orchestrator.results.least import LEAST_SEEDS, LEAST_SETS, too_few
from orchestrator.results.tables.contribution_to_all import CONTRIBUTION
from orchestrator.results.tables.correlations import LINEAR_UP_TO
from orchestrator.results.tables.statistics import BOOTSTRAP_DRAWS
from orchestrator.spec import Spec

QUANTITIES = (
    "condition_number_fixed_sigma", "condition_number_relative_sigma", "effective_rank", "label_alignment", "trace",
    "sigma_max", "n_parameters", "gcv", "leave_one_out_loss", "log_evidence", CONTRIBUTION,
    "eval_loss", "linearized_eval_loss",
)  # fmt: skip
"""Quantities that the page correlates with the outcome; the table has more."""

OUTCOME = "finetune_eval_loss"


@dataclass(frozen=True)
class Findings:
    """The tables that a page is written from.

    Attributes:
        spec: the spec of the sweep.
        n_cells, n_diverged: trained cells, and how many of them diverged.
        n_never_pulled: those in which lambda never acted on the trained model.
        linearity: see `orchestrator.results.findings.linearity`.
        correlations: the table `correlations`.
        regimes: see `orchestrator.results.findings.regimes`.
        choices: see `orchestrator.results.findings.choices`.
        provenance: lines about code and machine.
    """

    spec: Spec
    n_cells: int
    n_diverged: int
    n_never_pulled: int
    linearity: pd.DataFrame
    correlations: pd.DataFrame
    regimes: pd.DataFrame
    choices: pd.DataFrame
    provenance: Sequence[str]


def page(found: Findings) -> str:
    """Return the page in Markdown; names in it, which may come from somebody else, are no HTML."""
    lines = [*_head(found), *_linearity(found), *_correlations(found), *_choices(found), *_notes(found)]
    return printable("\n".join(lines) + "\n").replace("<", "&lt;")


def _head(found: Findings) -> Iterator[str]:
    spec = found.spec
    yield f"# {spec.name}: findings"
    yield ""
    yield (
        f"{found.n_cells} trained cells of {spec.model.path}, {found.n_diverged} of which diverged. Means are over "
        f"layer sets and seeds{_brackets(found)} The spec is in `spec.yaml`, all numbers in the tables beside this "
        "page."
    )
    yield ""
    if found.n_never_pulled:
        yield (
            f"In {found.n_never_pulled} of the trained cells λ never acted on the fine-tuned model (`finetune_pulled` "
            "is 0): they would have ended alike with any other λ."
        )
        yield ""


def _brackets(found: Findings) -> str:
    counts = found.linearity
    seeds, sets = (int(counts[name].max()) if len(counts) else 0 for name in ("n_seeds", "n_layer_sets"))
    if few := too_few(seeds=seeds, layer_sets=sets):
        return f". {few} So there are none here, and nothing is in bold."
    return (
        f", brackets hold 95 % intervals: percentiles of {BOOTSTRAP_DRAWS:,} draws of layer sets and seeds with "
        f"replacement, where there are at least {LEAST_SETS} layer sets and {LEAST_SEEDS} seeds."
    )


def _linearity(found: Findings) -> Iterator[str]:
    yield "## Does the linearized model describe fine-tuning?"
    yield ""
    yield (
        "f is the fine-tuned model, f_lin its linearization trained in the same way, both on evaluation examples. The "
        "error is |f(θ) − f(θ_0) − J (θ − θ_0)| at the fine-tuned weights, on a few training examples; rate is the "
        "slope of its logarithm against that of λ, from the λ before. It is bounded by (b/2)|θ − θ_0|² if b bounds the "
        "curvature on the way; b is measured at a few places only, and `held` is the share of cells in which the error "
        "is not larger."
    )
    yield ""
    if found.spec.grid.lambdas.scale == "trace":
        yield (
            "λ is in units of trace(K)/M, so that the same λ holds each layer set with a strength of its own: the "
            "larger its kernel, the more strongly."
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
        "held": ("linearization_bound_held", False),
        "\\|θ − θ_0\\|": ("finetune_distance", False),
        f"{metric} of f": (f"finetune_eval_{metric}", True),
        f"{metric} of f_lin": (f"linearized_eval_{metric}", True),
    }
    return {heading: column for heading, column in columns.items() if column[0] in rows}


def _threshold(rows: pd.DataFrame) -> str:
    few = _are_few(rows["n_seeds"].max(), rows["n_layer_sets"].max())
    close = rows[f"difference_eval_relative{'' if few else '_high'}"] <= LINEAR_UP_TO
    whole, included = ("", "on average") if few else (" with its whole interval", "interval included")
    majority = rows["majority_accuracy"].iloc[0] if "majority_accuracy" in rows else None
    always = "" if majority is None or pd.isna(majority) else f" Majority baseline: {majority:.3f}."
    before = rows["initial_eval_accuracy"].iloc[0] if "initial_eval_accuracy" in rows else None
    started = ""
    if before is not None and not pd.isna(before):
        above, n_seeds = rows["n_seeds_above_majority"].iloc[0], rows["n_seeds"].iloc[0]
        started = f" Before fine-tuning: {before:.3f}, better than the majority baseline in {above} of {n_seeds} seeds."
    if not close.any():
        says = f"At no λ of the grid is |f − f_lin| / |f| below {LINEAR_UP_TO:g}{whole}."
    else:
        # The smallest lambda from which on it holds for every larger one as well.
        from_here = rows["lambda_given"][close[::-1].cummin()[::-1]]
        says = (
            f"|f − f_lin| / |f| is below {LINEAR_UP_TO:g}, {included}, from λ = {from_here.min():.3g} on."
            if len(from_here)
            else f"|f − f_lin| / |f| is below {LINEAR_UP_TO:g} at some λ, but not at the largest."
        )
    return says + started + always


def _correlations(found: Findings) -> Iterator[str]:
    yield "## Does the spectrum at the pretrained point tell which layers to adapt?"
    yield ""
    yield (
        "Spearman correlation across layer sets of what is known before fine-tuning with the evaluation loss after it. "
        "A positive one means that layer sets with a larger number end worse. Layer sets are correlated within a "
        f"regime: linear where |f − f_lin| / |f| is at most {LINEAR_UP_TO:g} at that λ, on the geometric mean over "
        "seeds, nonlinear elsewhere; a correlation over both would mix two questions."
    )
    yield ""
    for regime in ("linear", "nonlinear"):
        yield from _regime(found.regimes, regime)
    yield "### One λ at a time"
    yield ""
    yield (
        "All layer sets at the smallest, a middle and the largest λ of each task. In bold where the interval leaves "
        f"out 0, with at least {LEAST_SETS} layer sets and {LEAST_SEEDS} seeds; neighboring λ repeat each other, and "
        "overlapping layer sets are not independent."
    )
    yield ""
    yield from _single_lambdas(found)


def _regime(regimes: pd.DataFrame, regime: str) -> Iterator[str]:
    rows = regimes[regimes["regime"] == regime] if len(regimes) else regimes
    yield f"### In the {regime} regime"
    yield ""
    if not len(rows) or rows["spearman"].isna().all():
        yield "No λ has three layer sets in it."
        yield ""
        return
    n_tasks = int(rows["spearman_tasks"].max())
    yield (
        f"One number a task, the mean over its {int(rows['n_lambdas'].max())} λ or fewer; p is the two-sided sign test "
        f"over {n_tasks} task{'s' if n_tasks > 1 else ''}, which cannot fall below {2.0 ** (1 - n_tasks):.3g}."
    )
    yield ""
    yield "| known before | median over tasks | above 0 in | p | given n_parameters | above 0 in | p |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for quantity in QUANTITIES:
        for _, row in rows[rows["quantity"] == quantity].iterrows():
            cells = [_over_tasks(row, name) for name in ("spearman", "partial_spearman")]
            yield f"| `{quantity}` | {' | '.join(cells)} |"
    yield ""


def _over_tasks(row: "pd.Series[Any]", name: str) -> str:
    if pd.isna(row[name]):
        return "- | - | -"
    return f"{row[name]:.2f} | {row[f'{name}_positive']} of {row[f'{name}_tasks']} | {row[f'{name}_p']:.2g}"


def _single_lambdas(found: Findings) -> Iterator[str]:
    of_outcome = found.correlations["outcome"] == OUTCOME
    table = found.correlations[of_outcome & (found.correlations["regime"] == "all")]
    regimes = found.linearity.set_index([*VARIANT, "lambda_given"])["regime"] if "regime" in found.linearity else None
    for names, rows in _by_variant(table):
        lambdas = sorted(rows["lambda_given"].unique())
        chosen = list(dict.fromkeys((lambdas[0], lambdas[len(lambdas) // 2], lambdas[-1])))
        place = tuple(rows[VARIANT].iloc[0])
        headings = [f"λ = {strength:.3g}" + _in_regime(regimes, (*place, strength)) for strength in chosen]
        yield f"#### {names}"
        yield ""
        yield f"| known before | {' | '.join(headings)} |"
        yield f"| --- |{' ---: |' * len(chosen)}"
        for quantity in QUANTITIES:
            of_quantity = rows[rows["quantity"] == quantity].set_index("lambda_given")
            if len(of_quantity):
                cells = [_coefficient(of_quantity.loc[strength], "spearman") for strength in chosen]
                yield f"| `{quantity}` | {' | '.join(cells)} |"
        yield ""
    shown = table[(table["n_seeds"] >= LEAST_SEEDS) & (table["n_layer_sets"] >= LEAST_SETS)]
    errors = shown["spearman_interval_error"].dropna()
    if len(errors):
        yield (
            f"The Monte Carlo standard error of the ends of these intervals is {errors.median():.2g} in the median and "
            f"at most {errors.max():.2g}."
        )
        yield ""


def _in_regime(regimes: "pd.Series[Any] | None", place: tuple[Any, ...]) -> str:
    named = None if regimes is None else regimes.get(place)
    return f" ({named})" if isinstance(named, str) else ""


def _choices(found: Findings) -> Iterator[str]:
    yield "## What would choosing by it have cost?"
    yield ""
    yield (
        "By how much the evaluation loss after fine-tuning of the chosen layer set exceeds that of the best one, on "
        "average over the λ of a regime; 0 is perfect. `random` is the mean over all layer sets, `all` the largest, "
        "`last` the highest single layer. A λ is mixed where the interval of |f − f_lin| / |f| holds "
        f"{LINEAR_UP_TO:g}."
    )
    yield ""
    place = [*VARIANT, "lambda_given"]
    choices = found.choices.merge(
        found.linearity[[*place, *(["regime"] if "regime" in found.linearity else [])]], on=place
    )
    if "regime" not in choices:
        choices["regime"] = "unknown"
    for regime, rows in choices.groupby(choices["regime"].fillna("unknown"), sort=True):
        yield f"### At λ that are {regime}"
        yield ""
        yield from _costs(rows, "excess_loss")
        if rows["lost_accuracy"].notna().any():
            yield "The same in accuracy: what the chosen layer set lacks of the highest one."
            yield ""
            yield from _costs(rows, "lost_accuracy")


def _costs(rows: pd.DataFrame, measure: str) -> Iterator[str]:
    means = rows.groupby([*VARIANT, "chosen_by"], sort=False, dropna=False)[measure].mean().reset_index()
    columns = dict(_by_variant(means))
    yield f"| chosen by | {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * len(columns)}"
    for way in means["chosen_by"].unique():
        yield f"| {way} | {' | '.join(_cost(of_variant, way, measure) for of_variant in columns.values())} |"
    yield ""


def _cost(means: pd.DataFrame, way: str, measure: str) -> str:
    values = means.loc[means["chosen_by"] == way, measure]
    return f"{float(values.iloc[0]):.4f}" if len(values) else "-"


def _notes(found: Findings) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    yield from (f"- {line}" for line in found.provenance)
    yield (
        "- `cells.parquet` and `correlations.parquet` are tables of the sweep, `linearity.csv`, `regimes.csv` and "
        "`choices.csv` the numbers of this page, ready to be plotted. docs/numbers.md, Correlations, says what the "
        "intervals cover."
    )


def _by_variant(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each task, rank, learning rate and training-set size, with a name of the varying values."""
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
    if not with_interval or _are_few(row["n_seeds"], row["n_layer_sets"]):
        return f"{row[name]:.3g}"
    return f"{row[name]:.3g} [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]"


def _are_few(seeds: int, layer_sets: int) -> bool:
    return bool(too_few(seeds=int(seeds), layer_sets=int(layer_sets)))


def _coefficient(row: "pd.Series[Any]", name: str) -> str:
    if pd.isna(row[name]):
        return "-"
    if _are_few(row["n_seeds"], row["n_layer_sets"]):
        return f"{row[name]:.2f}"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    text = f"{row[name]:.2f} [{low:.2f}, {high:.2f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
