"""The summary of a sweep on the terminal: which model's numbers, the table, and what limits their meaning."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import RenderableType

from orchestrator.cli.render import number, rows_table
from orchestrator.cli.summary import LayerSetSummary, Mean, Summary
from orchestrator.cli.terminal import line
from orchestrator.results.least import too_few

NAMES = {"": "ridge", "linearized_": "linearized", "finetune_": "fine-tuned"}
"""Names of the models, by what their columns begin with."""

EDGE = " (edge)"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        heading: its heading.
        text: writes the number of a layer set.
        rank: columns of the highest ranks are left out first where the terminal is too narrow; 0 stays.
    """

    heading: str
    text: Callable[[LayerSetSummary], str]
    rank: int = 0


def summary_view(summary: Summary, width: int) -> Iterator[RenderableType]:
    """Yield the summary from top to bottom, for a terminal of so many columns."""
    yield from (line(text) for text in _heading(summary))
    columns = _fitting(list(_columns(summary)), summary.layer_sets, width)
    yield rows_table([each.heading for each in columns], [[c.text(s) for c in columns] for s in summary.layer_sets])
    yield from (line(text) for text in _below(summary))


def _heading(summary: Summary) -> Iterator[str]:
    if summary.trained:
        yield "Each layer set at its best lambda, by evaluation loss of the fine-tuned model"
        yield "ridge: the linearized model, solved exactly; linearized and fine-tuned: as trained"
    else:
        untrained = f"no cell is trained yet (0 of {summary.n_cells})" if summary.trains else "nothing was trained"
        yield f"Ridge solutions: the linearized model, solved exactly; {untrained}"
        yield "Each layer set at its best lambda, by evaluation loss"
    seeds = f"mean±standard error over {summary.n_seeds} seeds" if summary.n_seeds > 1 else "one seed"
    yield f"{seeds}; {_scale(summary)}"


def _scale(summary: Summary) -> str:
    """Say on which scale lambda is; of an absolute one, what the unit of the other would be."""
    if summary.lambda_scale == "trace":
        return "lambda in units of trace/M"
    low, high = (number(end) for end in summary.trace_units)
    return f"lambda on the absolute scale (trace/M of the kernels: {low if low == high else f'{low} to {high}'})"


def _columns(summary: Summary) -> Iterator[Column]:
    sets = summary.layer_sets
    axes: Sequence[tuple[str, Callable[[LayerSetSummary], Any]]] = (
        ("task", lambda each: each.task),
        ("rank", lambda each: each.adapter_rank),
        ("learning rate", lambda each: each.learning_rate),
        ("n_train", lambda each: each.n_train),
    )
    for heading, of in axes:
        if len({of(each) for each in sets}) > 1:
            yield Column(heading, partial(_axis, of))
    yield Column("layer set", lambda each: each.layer_set)
    yield Column("parameters", lambda each: str(each.n_parameters), 3)
    yield Column("lambda", lambda each: number(each.best_lambda) + EDGE * each.at_edge)
    models = NAMES if summary.trained else {"": ""}
    for what in (summary.metric, "loss"):
        for model, name in models.items():
            rank = 2 if what == "loss" and model in ("", "linearized_") and summary.trained else 0
            heading = f"{name}\n{_called(what)}" if name else _called(what)
            yield Column(heading, partial(_mean_of, f"{model}eval_{what}"), rank)
    if any(each.stopping for each in sets):
        yield Column("or stop\nat time", lambda each: number(each.stopping.time) if each.stopping else "-", 1)
        yield Column("eval loss\nthere", _loss_there, 1)
    yield Column("condition", lambda each: number(each.condition_number_relative_sigma), 4)
    yield Column("eff. rank", lambda each: number(each.effective_rank, digits=3), 5)


def _loss_there(each: LayerSetSummary) -> str:
    return number(each.stopping.eval_loss, digits=4) if each.stopping else "-"


def _axis(of: Callable[[LayerSetSummary], Any], each: LayerSetSummary) -> str:
    return number(of(each))


def _mean_of(column: str, each: LayerSetSummary) -> str:
    return _mean(each.numbers.get(column))


def _called(what: str) -> str:
    return "eval loss" if what == "loss" else what


def _fitting(columns: list[Column], sets: Sequence[LayerSetSummary], width: int) -> list[Column]:
    """Return the columns that fit side by side, those of lowest rank."""
    while columns[1:] and _width(columns, sets) > width and (worst := max(column.rank for column in columns)):
        columns = [column for column in columns if column.rank < worst]
    return columns


def _width(columns: Sequence[Column], sets: Sequence[LayerSetSummary]) -> int:
    widths = [max(map(len, [*each.heading.split("\n"), *map(each.text, sets)])) for each in columns]
    return sum(widths) + 2 * (len(columns) - 1)


def _mean(found: Mean | None) -> str:
    """Write a mean and its standard error, with the digits that the error leaves."""
    if found is None:
        return "-"
    if found.standard_error is None:
        return number(found.mean, digits=4)
    error = found.standard_error
    if not error:
        return f"{number(found.mean)}±0"
    decimals = min(4, max(0, 1 - math.floor(math.log10(error))))
    return f"{found.mean:.{decimals}f}±{error:.{decimals}f}"


def _below(summary: Summary) -> Iterator[str]:
    if summary.majority_accuracy:
        reached = _of_tasks(summary.majority_accuracy)
        yield f"majority baseline: accuracy {reached}, reached by always answering the most common class"
    if worse := summary.no_better_than_majority:
        of = f" on {', '.join(worse)}" if len(summary.majority_accuracy) > 1 else ""
        yield f"no layer set is better than the majority baseline{of}"
    if summary.stopped_short:
        yield summary.stopped_short
    if at_edge := [each for each in summary.layer_sets if each.at_edge]:
        yield f"(edge): in {len(at_edge)} of {len(summary.layer_sets)} rows {_beyond(summary, at_edge)}"
    for name in summary.zero_kernels:
        yield (
            f"{name}: its kernel is zero, for no output depends on its parameters (is the head all zeros?), so that "
            "lambda in units of trace/M is no number; its rows are those of the model before fine-tuning"
        )
    for name in summary.rounding_kernels:
        yield (
            f"{name}: its kernel is no larger than rounding, for no output depends on its parameters (as where "
            "attention is to one token); its numbers mean nothing"
        )
    if any(each.stopping for each in summary.layer_sets):
        yield "or stop at time: where gradient flow of the linearized model without lambda has its lowest eval loss"
    if summary.trained and any(each.chosen_by == "eval_loss" for each in summary.layer_sets):
        yield "layer sets that are not trained yet stand at the best lambda of the ridge solution"
    if few := too_few(seeds=summary.n_seeds):
        yield few


def _beyond(summary: Summary, at_edge: Sequence[LayerSetSummary]) -> str:
    """Say at which end of the grid the best lambdas of some layer sets are, and in which direction to widen it."""
    there = {each.best_lambda for each in at_edge}
    named = zip(summary.lambda_range, ("smallest", "largest"), ("smaller", "larger"), strict=True)
    ends, further = zip(*((end, beyond) for value, end, beyond in named if value in there), strict=True)
    return (
        f"the best lambda is the {' or the '.join(ends)} of the grid, so that one beyond it may be better: add "
        f"{' and '.join(further)} ones to grid.lambdas, and run again"
    )


def _of_tasks(values: dict[str, float]) -> str:
    """Write a number, or one for each of several tasks."""
    if len(values) == 1:
        return f"{next(iter(values.values())):.4g}"
    return ", ".join(f"{task} {value:.4g}" for task, value in values.items())
