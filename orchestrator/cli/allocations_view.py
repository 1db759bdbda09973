"""The allocations of a sweep on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from orchestrator.cluster.allocations import Allocation


def allocations_view(allocations: "Sequence[Allocation]") -> list[Table | Text]:
    """Return a table of the allocations of a sweep, and what is to be said of those that ended badly."""
    if not allocations:
        return []
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("allocation", "state", "nodes", "since", "why"):
        table.add_column(heading, overflow="fold")
    for each in allocations:
        state = each.state
        table.add_row(each.job, state.state.value, state.nodes or "-", state.elapsed or "-", state.explanation)
    return [Text(), table]
