"""The allocations of a sweep on the terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.render import human_seconds
from orchestrator.cli.terminal import line

if TYPE_CHECKING:
    from orchestrator.cluster.allocations import Seen

FEW = 20
"""Most allocations that are listed one by one; of more, those that ended well are left out first."""


def allocations_view(seen: "Seen") -> Iterator[RenderableType]:
    """Yield a table of the allocations of a sweep, and messages about those that ended badly."""
    if seen.fault:
        yield Text()
        yield line(f"the scheduler could not be asked: {seen.fault}", style="yellow")
    if not seen.allocations:
        return
    by_interest = sorted(seen.allocations, key=lambda each: each.state.succeeded)
    shown = by_interest[:FEW]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("allocation", "state", "nodes", "ran", "which means"):
        table.add_column(heading, overflow="fold")
    for each in shown:
        state = each.state
        ran = "-" if not state.elapsed else human_seconds(state.elapsed)
        table.add_row(each.job, state.state.value, state.nodes or "-", ran, state.explanation)
    yield Text()
    yield table
    if len(shown) < len(by_interest):
        yield line(f"and {len(by_interest) - len(shown)} more allocations", style="dim")
    for each in shown:
        if each.words:
            yield line(f"{each.job}: {each.words}")
