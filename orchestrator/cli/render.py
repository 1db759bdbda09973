"""Tables on the terminal."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestrator.cli.doctor import Check
    from orchestrator.plan.estimate import Cost
    from orchestrator.plan.starting import Starting


def rows_table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    """Return a table whose columns after the first are right-aligned numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def costs_table(costs: "Sequence[Cost]", starting: "Starting | None" = None) -> Table:
    """Return a table of the missing stages and their costs; what concerns a GPU only where there is one.

    Args:
        costs: of each kind of stage.
        starting: the time to start, which gets a row of its own; None for no such row.
    """
    columns: dict[str, Callable[[Cost], str]] = {
        "stage": lambda cost: cost.kind,
        "planned": lambda cost: str(cost.stages),
        "there": lambda cost: str(cost.stages - cost.missing),
        "FLOPs": lambda cost: f"{cost.flops:.1e}" if cost.flops else "-",
        "read": lambda cost: _bytes_or_none(cost.read_bytes),
        "written": lambda cost: _bytes_or_none(cost.written_bytes),
        "memory": lambda cost: _bytes_or_none(cost.memory_bytes),
        "moved": lambda cost: _bytes_or_none(cost.moved_bytes),
        "on the GPU": lambda cost: _bytes_or_none(cost.device_bytes),
        "time": _time_of,
    }
    if not any(cost.device_bytes for cost in costs):
        del columns["moved"], columns["on the GPU"]
    rows = [[of(cost) for of in columns.values()] for cost in costs]
    if starting is not None:
        time = human_seconds(starting.seconds) + ("" if starting.measured else " ~")
        rows.insert(0, ["starting", *["-"] * (len(columns) - 2), time])
    return rows_table(list(columns), rows)


def _bytes_or_none(n_bytes: int) -> str:
    from orchestrator.spec.quantities import human_bytes

    return human_bytes(n_bytes) if n_bytes else "-"


def _time_of(cost: "Cost") -> str:
    if cost.seconds is None:
        return "-"
    return human_seconds(cost.seconds) + ("" if cost.measured or not cost.missing else " ~")


def checks_table(checks: "Sequence[Check]") -> Table:
    """Return a table of the results of `doctor`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "needed for", "what", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        mark = "ok" if check.ok else "MISSING" if check.required else "-"
        table.add_row(mark, check.feature, check.name, check.found, check.advice)
    return table


def cells_table(cells: "pa.Table") -> Table:
    """Return a table of cells without averages; long headings take a second line, behind the name of the model."""
    rows = [[number(value) for value in row.values()] for row in cells.to_pylist()]
    headings = [re.sub("^(linearized|finetune)_", r"\1_\n", name) for name in cells.column_names]
    return rows_table(headings, rows)


def number(value: Any, digits: int = 3) -> str:
    """Format a value for people: few digits, `-` for none."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def human_seconds(seconds: float) -> str:
    """Format a duration for people."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
