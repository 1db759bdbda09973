"""Tables on the terminal."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestrator.cli.doctor import Check
    from orchestrator.plan.estimate import Cost


def rows_table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    """Return a table whose columns after the first are right-aligned numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def costs_table(costs: "Sequence[Cost]") -> Table:
    """Return a table of the missing stages and their costs."""
    from orchestrator.spec.quantities import human_bytes

    rows = [
        (
            cost.kind,
            str(cost.stages),
            str(cost.stages - cost.missing),
            f"{cost.flops:.1e}" if cost.flops else "-",
            human_bytes(cost.disk_bytes),
            human_bytes(cost.memory_bytes) if cost.memory_bytes else "-",
            "-"
            if cost.seconds is None
            else human_seconds(cost.seconds) + ("" if cost.measured or not cost.missing else " ~"),
        )
        for cost in costs
    ]
    return rows_table(("stage", "planned", "there", "FLOPs", "disk", "memory", "time"), rows)


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
    """Return a table of cells without averages."""
    rows = [[number(value) for value in row.values()] for row in cells.to_pylist()]
    return rows_table(cells.column_names, rows)


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
