"""The head of a report: what the sweep was, what is best in it, and what to beware of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.results.least import LEAST_SETS, too_few
from orchestrator.results.pictures.lambda_path import METRIC_NAMES, at_edge, best_rows
from orchestrator.results.pictures.measured import Measured, Variant, over_seeds
from orchestrator.results.stopped_short import COLUMNS_COMPARED, stopped_short

SHOWN = 6
"""Layer sets in the table of the best."""


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Summary:
    """The head of a report.

    Attributes:
        name: name of the sweep.
        lead: what it was, in a sentence.
        facts: short facts, each with its name.
        answer: whose numbers these are and which are best.
        best: for each variant that is drawn, its best layer sets.
        cautions: what to know before believing them.
    """

    name: str
    lead: str
    facts: Sequence[tuple[str, str]]
    answer: str
    best: Sequence[Table]
    cautions: Sequence[str]


def summarize(measured: Measured) -> Summary:
    """Return the head of the report of a sweep."""
    return Summary(
        name=measured.spec.name,
        lead=_lead(measured),
        facts=list(_facts(measured)),
        answer=_answer(measured),
        best=[_best(measured, variant) for variant in measured.variants],
        cautions=list(_cautions(measured)),
    )


def _lead(measured: Measured) -> str:
    spec, cells = measured.spec, measured.cells
    tasks = ", ".join(map(str, cells["task"].unique()))
    about = f"{spec.model.path}, adapted by {spec.adapter.kind}" + (f" to {tasks}" if tasks else "")
    did = (
        "Every cell was fine-tuned, and its linearization trained beside it."
        if measured.trained
        else (
            f"No cell is trained yet (0 of {len(cells):,}): "
            if spec.finetune is not None and len(cells)
            else "Nothing was trained: "
        )
        + "all numbers are those of the linearized model, solved exactly."
    )
    return f"{about}. {did}"


def _facts(measured: Measured) -> Iterator[tuple[str, str]]:
    cells = measured.cells
    status = measured.work.status if measured.work else None
    yield (
        "cells",
        f"{len(cells):,}" if status is None or status.cells == len(cells) else f"{len(cells):,} of {status.cells:,}",
    )
    if measured.trained:
        yield "trained", f"{int(cells['finetune_status'].notna().sum()):,}"
    if len(cells):
        yield "layer sets", f"{len(measured.layer_sets):,}"
        yield "λ", f"{cells['lambda_given'].nunique()}"
        yield "seeds", f"{measured.n_seeds}"
        yield "training examples", ", ".join(f"{n:,}" for n in sorted(cells["n_train"].unique()))
        yield "evaluation examples", ", ".join(f"{int(n):,}" for n in sorted(cells["n_eval"].unique()))
    if status is not None and (failed := sum(kind.failed for kind in status.kinds)):
        yield "failed stages", f"{failed:,}"
    if measured.work is not None and len(measured.work.kinds):
        yield "worker time", duration(float(measured.work.kinds["seconds"].sum()))


def _answer(measured: Measured) -> str:
    if measured.cells.empty:
        return "No cell is finished yet: there is nothing to compare."
    whose = (
        "fine-tuned models, with the ridge solution and the trained linearization of the same cells beside them"
        if measured.trained
        else "ridge solutions, which is what fine-tuning the linearized model with squared loss would end at"
    )
    loss = "evaluation loss of the fine-tuned model" if measured.trained else "evaluation loss"
    return (
        f"Below are the numbers of {whose}. Each layer set stands at the λ with its smallest mean {loss}, "
        f"best first. λ is {_scale(measured)}. It was chosen on the same evaluation "
        "examples, so the best numbers are a little too good."
    )


def _scale(measured: Measured) -> str:
    """Return the scale of λ; of an absolute one, with what the unit of the other would be."""
    if measured.lambda_unit != "absolute":
        return measured.lambda_unit
    units = (measured.cells["trace"] / measured.cells["kernel_size"]).dropna()
    if units.empty:
        return "on the absolute scale"
    low, high = f"{units.min():.3g}", f"{units.max():.3g}"
    return f"on the absolute scale (trace(K)/M is {low if low == high else f'{low} to {high}'})"


def _best(measured: Measured, variant: Variant) -> Table:
    models = {"ridge": ""}
    if measured.trained:
        models = {"fine-tuned": "finetune_", "linearized": "linearized_", "ridge": ""}
    cells = variant.choose(measured.cells)
    columns = [f"{prefix}eval_{what}" for prefix in models.values() for what in (variant.metric, "loss")]
    frame = over_seeds(cells, ["layer_set", "lambda_given"], columns)
    by = "finetune_eval_loss" if measured.trained else "eval_loss"
    errors = cells.groupby(["layer_set", "lambda_given"], sort=False)[columns].sem().add_suffix("_error")
    frame = frame.join(errors, on=["layer_set", "lambda_given"])
    best = best_rows(frame, by)
    edge = at_edge(frame, best, by) & (frame["lambda_given"].nunique() > 1)
    sizes = cells.groupby("layer_set", sort=False)["n_parameters"].first()
    n_seeds = int(frame["n_seeds"].max())
    best = best.assign(edge=edge, lacking=best["n_seeds"] < n_seeds)
    best = best.sort_values(["lacking", by], kind="stable")[:SHOWN]
    metric = METRIC_NAMES[variant.metric][0]
    headings = ["layer set", "parameters", "best λ"] + [
        f"{whose} {what}" for whose in models for what in (metric, "loss")
    ]
    rows = [
        [
            str(row["layer_set"]) + (f" ({row['n_seeds']} of {n_seeds} seeds)" if row["lacking"] else ""),
            f"{int(sizes[row['layer_set']]):,}",
            f"{row['lambda_given']:.3g}" + (" (edge)" if row["edge"] else ""),
            *(with_spread(row, column) for column in columns),
        ]
        for _, row in best.iterrows()
    ]
    seeds = f"mean over {n_seeds} seeds, ± standard error" if measured.n_seeds > 1 else "one seed"
    majority = cells["majority_accuracy"].mean()
    baseline = "" if pd.isna(majority) else f"; the majority baseline has accuracy {majority:.3f}"
    title = f"{variant.title or 'Best layer sets'} ({seeds}{baseline})"
    return Table(title, headings, rows)


def with_spread(row: "pd.Series[Any]", column: str) -> str:
    """Return a mean, with its standard error where there are several seeds."""
    value, error = row[column], row[f"{column}_error"]
    if pd.isna(value):
        return "–"
    return f"{value:.4g}" + ("" if pd.isna(error) else f" ± {error:.2g}")


def _cautions(measured: Measured) -> Iterator[str]:
    cells = measured.cells
    status = measured.work.status if measured.work else None
    if status is not None and len(cells) < status.cells:
        yield (
            f"{len(cells):,} of {status.cells:,} cells are in the tables. A missing cell may be better than "
            "these; `ntksweep run` goes on."
        )
    if cells.empty:
        return
    if lacking := measured.lacking_seeds:
        yield (
            f"{len(lacking)} of {len(measured.layer_sets)} layer sets lack seeds: seeds differ in data and head, so "
            "do not compare means over different ones. They are listed after the others, and none is called the best."
        )
    if measured.n_seeds == 1:
        yield "One seed: nothing here shows how much the numbers differ between seeds."
    elif few := too_few(seeds=measured.n_seeds):
        yield few
    n_sets = len(measured.layer_sets)
    if n_sets < LEAST_SETS:
        counted = f"{n_sets} layer sets" if n_sets > 1 else "One layer set"
        yield f"{counted}: a correlation over fewer than {LEAST_SETS} means nothing."
    if measured.trained:
        yield from _cautions_of_training(measured)
    yield from _worse_than_majority(measured)
    n_eval = int(cells["n_eval"].min())
    if (cells["eval_accuracy"].notna().any()) and n_eval:
        yield (
            f"{n_eval:,} evaluation examples: an accuracy has a standard error of up to {50 / n_eval**0.5:.1f} points "
            "from them alone."
        )
    leaked = cells[["eval_in_train", "finetune_eval_in_train"]].max().max()
    if leaked and not pd.isna(leaked):
        yield f"Up to {int(leaked)} evaluation examples have a text that stands among the training examples too."
    if not cells["condition_number_resolved"].fillna(value=True).astype(bool).all():
        yield (
            "Some kernels have a smallest eigenvalue below the noise floor: their plain condition number is noise, and "
            "pictures show the one with kernel.relative_sigma added."
        )


def _cautions_of_training(measured: Measured) -> Iterator[str]:
    cells = measured.cells
    if (cells["outputs"] == "trace").any():
        yield (
            "kernel.outputs is trace: the ridge solution has the kernel that is averaged over outputs, the trained "
            "linearization the full one, so that the two need not agree."
        )
    apart = cells[cells["finetune_n_train"].notna() & (cells["finetune_n_train"] != cells["n_train"])]
    if len(apart):
        yield (
            f"Cells were trained on {int(apart['finetune_n_train'].max()):,} examples and the kernel has "
            f"{int(apart['n_train'].min()):,} of them: ridge solutions are fitted to those alone, and training may do "
            "better for its examples."
        )
    if short := stopped_short(measured.spec, measured.tables.read("cells", list(COLUMNS_COMPARED))):
        yield short
    diverged = int((cells["finetune_status"] == "diverged").sum())
    if diverged:
        yield f"{diverged:,} trainings diverged and are left out of all means."


def _worse_than_majority(measured: Measured) -> Iterator[str]:
    """Yield a sentence for each variant of which no layer set has a better accuracy than the majority baseline."""
    loss = "finetune_eval_loss" if measured.trained else "eval_loss"
    accuracy = loss.replace("loss", "accuracy")
    for variant in measured.variants:
        cells = variant.choose(measured.cells)
        majority = cells["majority_accuracy"].mean()
        best = best_rows(over_seeds(cells, ["layer_set", "lambda_given"], [loss, accuracy]), loss)[accuracy].max()
        if best <= majority:
            yield variant.titled(
                f"no layer set is better than the majority baseline: it has accuracy {majority:.4g}, the best of them "
                f"{best:.4g}, each at its best λ."
            )


def duration(seconds: float) -> str:
    """Return a time in the unit that fits it."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
