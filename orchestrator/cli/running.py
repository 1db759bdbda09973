"""The command that runs a sweep: run."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.arguments import (
    JsonOption,
    OnChangeOption,
    OverridesArgument,
    SpecArgument,
    TrustOption,
    as_typed,
    given_spec,
    possible_path,
    results_elsewhere,
    traceback_wanted,
)
from orchestrator.cli.stopping import end_at_once, said_at_once
from orchestrator.cli.terminal import Terminal
from orchestrator.errors import ExitCode, SpecError
from orchestrator.sweep.on_change import OnChange

if TYPE_CHECKING:
    from orchestrator.engine.run import Ending
    from orchestrator.results.status import Status
    from orchestrator.spec import Spec
    from orchestrator.sweep.folder import ResultsFolder


def run(
    spec: SpecArgument,
    overrides: OverridesArgument = None,
    *,
    executor: Annotated[
        str | None, typer.Option(help="ray or inline; overrides the spec.", metavar="ray|inline")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; overrides the spec.", min=1)] = None,
    on_change: OnChangeOption = OnChange.REFUSE,
    trust_remote_code: TrustOption = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Write each trained cell as a run of TensorBoard into this folder, while it is trained.",
            metavar="FOLDER",
            show_default=False,
            callback=possible_path,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a sweep, or go on with one that was interrupted.

    Finished stages are never computed again; a finished sweep is left alone. Several runs of one sweep share the work.

    Example: ntksweep run examples/quickstart.yaml 'grid.seeds=[0,1]' --workers 4
    """
    from orchestrator.sweep.folder import ResultsFolder
    from slurm.ray.gpus import allocator_settings

    given, base = given_spec(spec, overrides)
    checked = _override(given, executor, workers)
    if checked.compute.device == "cuda":
        os.environ.update(allocator_settings(os.environ))  # torch, which reads them once, is not loaded yet
    if not as_json:
        _say_what_comes_first(checked, spec)
    ending = _run(checked, base, on_change=on_change, trusts_code=trust_remote_code, tensorboard=tensorboard)
    if ending is None:
        return
    folder = ResultsFolder(checked.folder)
    if as_json:
        print(json.dumps(_facts(ending, folder), indent=1))
    else:
        _print_ending(ending, folder, show_trace=traceback_wanted())
    if ending.report.failures:
        raise typer.Exit(ExitCode.FAILED_STAGES)


def _say_what_comes_first(checked: "Spec", path: Path) -> None:
    """Say on standard error what the run begins with: libraries load for seconds, in which nothing else is shown."""
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK") != "0":
        return  # the first process of a group speaks for all
    said = f"sweep {checked.name} of {as_typed(path)}: looking at the model and the data"
    Terminal(stderr=True).print(said, soft_wrap=True)


def _run(
    checked: "Spec", base: Path, *, on_change: OnChange, trusts_code: bool, tensorboard: Path | None
) -> "Ending | None":
    """Run a sweep; return how it ended, or None in a process that only follows the first one of its process group."""
    from orchestrator.cli.progress import Bars
    from orchestrator.engine.run import run as run_sweep
    from orchestrator.engine.torchrun import follow, launched_group
    from orchestrator.spec.naming_lines import naming_lines
    from orchestrator.sweep.folder import ResultsFolder

    with naming_lines(checked), launched_group(checked) as process_group:
        if not process_group.leads:
            end_at_once()  # it waits for the first one, in calls that answer no signal
            follow(checked, base, process_group, trusts_code=trusts_code)
            return None
        with (
            _status_reader(checked, ResultsFolder(checked.folder), tensorboard) as look,
            Bars(Terminal(stderr=True), look) as bars,
            said_at_once(bars.note),
        ):
            if (said := results_elsewhere(checked, base)) is not None:
                bars.note(said)
            return run_sweep(
                checked,
                base,
                bars,
                on_change=on_change,
                process_group=process_group,
                trusts_code=trusts_code,
            )


@contextmanager
def _status_reader(spec: "Spec", folder: "ResultsFolder", into: Path | None) -> "Iterator[Callable[[], Status]]":
    """Yield a function that reads the status of the sweep and, if that is asked for, writes new values for TensorBoard.

    Raises:
        SweepError: TensorBoard is not there, its folder cannot be written, or the sweep trains nothing.
    """
    from orchestrator.cli.watching import looking_at

    look = looking_at(folder)
    if into is None:
        yield look
        return
    if spec.finetune is None:
        raise SpecError("--tensorboard writes trained cells, and this spec trains none: it has no section `finetune`")
    from orchestrator.results.tensorboard import TensorBoard

    board = TensorBoard(folder, into)

    def look_and_write() -> "Status":
        found = look()
        board.update(found)
        return found

    try:
        yield look_and_write
        look_and_write()
    finally:
        board.close()


def _override(spec: "Spec", executor: str | None, workers: int | None) -> "Spec":
    changes = {key: value for key, value in (("executor", executor), ("workers", workers)) if value is not None}
    if executor not in (None, "ray", "inline"):
        raise SpecError(f"there is no executor `{executor}`; give ray or inline")
    return spec.model_copy(update={"compute": spec.compute.model_copy(update=changes)})


def _facts(ending: "Ending", folder: "ResultsFolder") -> dict[str, Any]:
    """Return what `--json` prints."""
    report = ending.report
    return {
        "cells": ending.plan.n_cells,
        "cells_in_tables": ending.n_cells,
        "computed": report.computed,
        "blocked": report.blocked,
        "failures": [
            {"kind": f.stage.kind, "stage": f.stage.stage_id, "failure": f.failure, "message": f.message}
            for f in report.failures
        ],
        "folder": str(folder.root),
    }


def _print_ending(ending: "Ending", folder: "ResultsFolder", *, show_trace: bool) -> None:
    from orchestrator.cli.notes import notes_of
    from orchestrator.cli.summary import summarize
    from orchestrator.cli.summary_view import summary_view
    from orchestrator.results.loading import Results

    console = Terminal()
    if ending.n_cells:
        for part in summary_view(summarize(Results(folder)), console.width):
            console.print(part)
        console.print()
    for note in notes_of(ending.plan):
        console.print(note)
    if ending.tables_written:
        console.print("every stage was finished already; the tables were written again")
    elif ending.was_finished:
        console.print("the sweep was finished already; nothing to do")
    for failure in ending.report.failures[:5]:
        console.print(f"failed ({failure.failure}): {failure.stage.label}, stage {failure.stage.stage_id}", style="red")
        console.print(failure.message.strip(), soft_wrap=True)
        if show_trace and failure.trace:
            console.print(failure.trace.rstrip(), soft_wrap=True)
    if ending.report.failures:
        n_failed = len(ending.report.failures)
        console.print(
            f"{n_failed} stage{'s' if n_failed > 1 else ''} failed and {ending.report.blocked} wait for them; when the "
            "cause is corrected, run the same command again",
        )
    console.print(
        f"{ending.n_cells} of {ending.plan.n_cells} cells in {as_typed(folder.tables)}/cells",
        soft_wrap=True,
    )
    if ending.n_cells:
        console.print(f"`ntksweep report {as_typed(folder.root)}` makes a page of them", soft_wrap=True)
