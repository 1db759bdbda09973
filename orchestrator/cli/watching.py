"""The command that shows the status of a sweep, once or continuously."""

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from orchestrator.cli.arguments import FolderArgument, JsonOption, results_folder
from orchestrator.cli.terminal import Terminal
from orchestrator.errors import ExitCode

if TYPE_CHECKING:
    from orchestrator.cluster.allocations import Seen
    from orchestrator.results.status import Status
    from orchestrator.sweep.folder import ResultsFolder

REFRESHED_EVERY = 2.0
"""Seconds between two looks at a sweep that is watched."""


def status(
    path: FolderArgument,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again, until every cell is in the tables, or Ctrl-C.")
    ] = False,
    every_row: Annotated[bool, typer.Option("--all", help="Show every layer set and lambda.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every artifact and table with its checksum.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say how a sweep stands: planned = finished + running + failed + missing.

    Exit status: 0 if every cell is in the tables, 1 if stages failed, 3 otherwise.

    Example: ntksweep status results/quickstart --watch
    """
    from orchestrator.cli.status_view import status_view
    from orchestrator.sweep.missing_places import run_again

    if watch and (as_json or verify):
        raise typer.BadParameter("--watch goes with neither --json nor --verify, which look once")
    folder = results_folder(path)
    look, allocations = looking_at(folder, verify=verify), _allocations(folder)
    found = look()
    if as_json:
        print(json.dumps(found.to_json() | {"folder": str(folder.root)} | _jobs_as_json(allocations()), indent=1))
    elif watch:

        def view(each: "Status") -> Group:
            return Group(*status_view(each, every_row=every_row, seen=allocations(), watched=True))

        found = _watch(look, view, found)
    else:
        console = Terminal()
        for part in status_view(found, every_row=every_row, seen=allocations()):
            # Long messages and paths are left to the terminal, so that they can be copied whole.
            console.print(part, soft_wrap=isinstance(part, Text))
        if verify and not found.damaged:
            console.print("every artifact and table matches its checksum")
        elif found.damaged or found.damaged_before:
            console.print(
                f"`{run_again(folder.root)}`, or `ntksweep resume` on a cluster, sets damaged artifacts aside and "
                "computes them again",
                soft_wrap=True,
            )
    if found.failures:
        raise typer.Exit(ExitCode.FAILED_STAGES)
    if not found.complete:
        raise typer.Exit(ExitCode.UNFINISHED)


def looking_at(folder: "ResultsFolder", *, verify: bool = False) -> "Callable[[], Status]":
    """Return a function that reads the status of a sweep; later calls continue where earlier ones ended.

    Raises:
        SweepError: from the function: the folder holds no sweep.
    """
    from orchestrator.plan.index import PlanIndex, plan_index
    from orchestrator.results.status import status_of
    from orchestrator.store.history import History

    history = History(folder.journals)
    known: PlanIndex | None = None

    def look() -> "Status":
        nonlocal known
        known = plan_index(folder, known)
        return status_of(known, folder, history, verify=verify)

    return look


def _allocations(folder: "ResultsFolder") -> "Callable[[], Seen | None]":
    """Return a function that reads the states of a sweep's allocations; None if it was never submitted."""
    if not os.path.isdir(folder.submissions):  # noqa: PTH112 - a folder of others may not be entered
        return lambda: None
    from orchestrator.cluster.allocations import Watched

    return Watched(folder).look


def _jobs_as_json(seen: "Seen | None") -> dict[str, Any]:
    if seen is None:
        return {}
    return {"allocations": [each.to_json() for each in seen.allocations], "scheduler_fault": seen.fault}


def _watch(look: "Callable[[], Status]", view: "Callable[[Status], Group]", found: "Status") -> "Status":
    """Show a sweep until it is complete or the user presses Ctrl-C; return its last status."""
    from rich.live import Live

    try:
        with Live(view(found), console=Terminal(), auto_refresh=False) as live:
            while not found.tables_complete:
                time.sleep(REFRESHED_EVERY)
                found = look()
                live.update(view(found), refresh=True)
    except KeyboardInterrupt:
        pass  # Ctrl-C is the usual way to leave the view
    return found
