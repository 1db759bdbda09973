"""Status of a sweep, as tables and lines on the terminal."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.allocations_view import allocations_view
from orchestrator.cli.in_progress import clock, joined, remaining, trainings
from orchestrator.cli.render import human_seconds, number, rows_table
from orchestrator.cli.terminal import line
from orchestrator.results.status import Computing, Count, Status

if TYPE_CHECKING:
    from orchestrator.cluster.allocations import Seen

FEW = 10
"""Rows of a table that are shown unless every row is asked for."""

_COUNTS = ("finished", "running", "failed", "missing")


def status_view(
    found: Status, *, every_row: bool = False, seen: "Seen | None" = None, watched: bool = False
) -> list[RenderableType]:
    """Return the whole view of a sweep's status, from top to bottom.

    Args:
        found: status of the sweep.
        every_row: show every layer set and every lambda, also the finished ones.
        seen: states of the sweep's jobs on a cluster.
        watched: the most important lines come first, for a screen that cuts off the rest; else they come last, above
        the next prompt.
    """
    kinds = [_row(str(count.name), count) for count in found.kinds]
    stages = [rows_table(("stage", "planned", *_COUNTS), kinds)]
    grid = [
        *_grid("task, rank, learning rate", found.variants, every_row),
        *_grid("layer set", found.layer_sets, every_row),
        *_grid("lambda", found.lambdas if every_row else list(_joined(found.lambdas)), every_row),
    ]
    workers = [*_computing(found.computing), *(allocations_view(seen) if seen else ())]
    if tables := trainings(found.computing):
        workers += [Text(), *tables]
    totals = [
        line(f"{found.cells_finished} of {found.cells} cells finished, {found.cells_in_tables} in the tables"),
        *_time_left(found),
        *_failures(found.failures),
        *_foreign(found.foreign),
        *(line(f"damaged: {name}", style="red") for name in found.damaged),
        *(line(f"damaged when last verified: {name}", style="red") for name in found.damaged_before),
    ]
    if watched:
        return [*totals, Text(), *stages, *workers, *grid]
    return [*stages, *grid, *workers, Text(), *totals]


def _row(name: str, count: Count) -> tuple[str, ...]:
    return name, *map(str, (count.planned, count.finished, count.running, count.failed, count.missing))


def _grid(what: str, counts: Sequence[Count], every_row: bool) -> Iterator[RenderableType]:
    """Yield a table of cells, those that are not all finished first."""
    ordered = sorted(counts, key=lambda count: count.finished == count.planned)
    unfinished = sum(count.finished < count.planned for count in counts)
    shown = ordered if every_row else ordered[: min(unfinished, FEW)]
    if not shown:
        return
    yield Text()
    yield rows_table((what, "cells", *_COUNTS), [_row(number(count.name, digits=6), count) for count in shown])
    more, finished = max(0, unfinished - len(shown)), len(counts) - unfinished
    if not every_row and (more or finished):
        left_out = [f"{more} more {_are(more)} unfinished"] * bool(more)
        left_out += [f"{finished} {_are(finished)} finished"] * bool(finished)
        yield line(f"{' and '.join(left_out)}: --all shows every one", style="dim")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _joined(lambdas: Sequence[Count]) -> Iterator[Count]:
    """Yield one count for neighboring lambdas with equal counts, as when one decomposition serves them all."""
    for (planned, *states), alike in groupby(
        lambdas, key=lambda c: (c.planned, c.finished, c.running, c.failed, c.missing)
    ):
        names = [number(count.name, digits=6) for count in alike]
        name = names[0] if len(names) == 1 else f"each of {len(names)}, {names[0]} to {names[-1]}"
        yield Count(name, planned, *states)


def _computing(computing: Sequence[Computing]) -> Iterator[RenderableType]:
    """Yield a table of the processes that are computing, one row for each machine and Slurm job."""
    if not computing:
        return
    rows = []
    by_place = sorted(computing, key=_place)
    for (job, host), there in groupby(by_place, key=_place):
        listed = list(there)
        kinds = Counter(one.kind for one in listed)
        stages = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        rows.append((host, job, str(len({one.process for one in listed})), stages))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("computing now", "Slurm job", "processes", "stages"):
        table.add_column(heading, justify="right" if heading == "processes" else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    yield Text()
    yield table


def _place(one: Computing) -> tuple[str, str]:
    return one.job or "-", one.host or "unknown"


def _time_left(found: Status) -> Iterator[Text]:
    if found.cells_finished == found.cells and found.worker_seconds == 0:
        return
    if found.worker_seconds is None:
        yield line(f"time left: unknown until a stage is finished of: {', '.join(found.unmeasured)}")
    elif found.seconds_left is None:
        yield line(f"no worker is running; about {human_seconds(found.worker_seconds)} of work are left for one worker")
    else:
        elapsed = "" if found.elapsed is None else f"{clock(found.elapsed)} elapsed since the last run began"
        yield line(joined((elapsed, remaining(found.worker_seconds, found.workers))))


def _foreign(paths: Sequence[str]) -> Iterator[Text]:
    if paths:
        more = f" and {len(paths) - FEW} more" if len(paths) > FEW else ""
        yield line(
            f"ignored: {', '.join(paths[:FEW])}{more}; ntksweep did not write them, or you may not read them: move "
            "them out of the results folder, or have them made readable",
            style="yellow",
        )


def _failures(failures: Sequence[Mapping[str, Any]]) -> Iterator[Text]:
    """Yield, for each class of failure, the number of its stages and the last message."""
    by_class: dict[str, list[Mapping[str, Any]]] = {}
    for event in failures:
        by_class.setdefault(event["failure"], []).append(event)
    for failure, events in by_class.items():
        last = events[-1]
        count = f"{len(events)} stages, the last one " if len(events) > 1 else ""
        yield line(f"failed ({failure}): {count}{last['kind']} {last['stage']}{_cells(last)}", style="red")
        yield line(str(last.get("message", "")).strip())


def _cells(event: Mapping[str, Any]) -> str:
    if "layer_sets" not in event:
        return ""
    names = ", ".join(event["layer_sets"][:3]) + (" and others" if len(event["layer_sets"]) > 3 else "")
    variant = f"{event['variant']}; " if "variant" in event else ""
    return f" ({variant}{names}; seed {event['seed']}, {event['n_train']} examples)"
