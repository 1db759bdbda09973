"""The trainings and times of a run in progress, as `run` and `status` show them."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import RenderableType

from orchestrator.cli.render import human_seconds, number, rows_table
from orchestrator.results.status import Computing
from orchestrator.store.training_progress import TrainingProgress

MOST_SHOWN = 8
"""Trainings that are shown; the rest of a large cluster's are counted."""


def trainings(computing: Sequence[Computing]) -> list[RenderableType]:
    """Return a table of the trainings that run: epochs, and losses of the last update and the last evaluation."""
    going = [one.training for one in computing if one.training is not None]
    if not going:
        return []
    rows = [(each.label, _epochs(each), _span(each.losses), _span(each.eval_losses)) for each in going[:MOST_SHOWN]]
    if len(going) > MOST_SHOWN:
        rows.append((f"and {len(going) - MOST_SHOWN} more", "", "", ""))
    return [rows_table(("training now", "epoch", "batch loss", "eval loss"), rows)]


def _epochs(training: TrainingProgress) -> str:
    return f"{training.epoch:.1f}/{training.epochs:g}" if training.epochs < 100 else (
        f"{training.epoch:.0f}/{training.epochs:.0f}"
    )  # fmt: skip


def _span(losses: Mapping[int, float]) -> str:
    """Write the losses of several cells, smallest to largest."""
    if not losses:
        return "-"
    low, high = (number(float(end)) for end in (min(losses.values()), max(losses.values())))
    return low if low == high else f"{low}-{high}"


def clock(seconds: float) -> str:
    """Write a time that goes on, as hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def remaining(worker_seconds: float | None, workers: int) -> str:
    """Write the time that is left for some workers; empty where it is not known."""
    if worker_seconds is None or not workers:
        return ""
    return f"about {human_seconds(worker_seconds / workers)} remaining on {workers} worker{'s' if workers > 1 else ''}"


def joined(parts: Iterable[str]) -> str:
    """Return the parts that are not empty, with commas."""
    return ", ".join(filter(None, parts))
