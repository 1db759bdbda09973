"""The commands that plan and run a sweep: schema, plan, run."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
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
from orchestrator.cli.render import costs_table, human_seconds
from orchestrator.cli.stopping import end_at_once, said_at_once
from orchestrator.cli.terminal import Terminal
from orchestrator.errors import ExitCode, SpecError
from orchestrator.sweep.on_change import OnChange

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.plan.estimate import Cost, Kernels
    from orchestrator.plan.plan import Plan
    from orchestrator.plan.speeds import Speeds
    from orchestrator.plan.starting import Starting
    from orchestrator.results.status import Status
    from orchestrator.spec import Spec
    from orchestrator.sweep.folder import ResultsFolder


def schema() -> None:
    """Print the JSON Schema of the spec, for editors that complete a spec and programs that check it.

    Example: ntksweep schema > ntksweep.schema.json
    """
    from orchestrator.spec.schema import json_schema

    print(json_schema(), end="")


def plan(
    spec: SpecArgument,
    overrides: OverridesArgument = None,
    *,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="First measure this machine with the model, for better times; takes some seconds."
        ),
    ] = False,
    trust_remote_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a sweep would compute, what is done already, and what it costs; computes nothing.

    Example: ntksweep plan examples/quickstart.yaml grid.seeds=[0,1]
    """
    from orchestrator.spec.naming_lines import naming_lines

    checked, base = given_spec(spec, overrides)
    with naming_lines(checked):
        _plan(checked, base, probe=probe, trusts_code=trust_remote_code, as_json=as_json)


def _plan(checked: "Spec", base: Path, *, probe: bool, trusts_code: bool, as_json: bool) -> None:
    from orchestrator.cli.classes_view import classes_facts
    from orchestrator.cli.joined_notes import joined_notes
    from orchestrator.cli.notes import notes_of, rows_notes
    from orchestrator.cli.product_notes import product_notes
    from orchestrator.engine.run import resolve
    from orchestrator.plan.estimate import costs, kernels, refuse_what_cannot_fit
    from orchestrator.plan.plan import make_plan, missing_stages
    from orchestrator.plan.probe import probed_speeds
    from orchestrator.plan.speeds import speeds_of
    from orchestrator.plan.stacks_note import stacks_notes
    from orchestrator.plan.starting import starting
    from orchestrator.store.files import refuse_unwritable
    from orchestrator.sweep.folder import ResultsFolder
    from orchestrator.sweep.model_memory import fitting_notes, refuse_model_that_cannot_fit, this_device
    from orchestrator.sweep.settings import refuse_untrusted_code
    from orchestrator.sweep.survey import surveys
    from orchestrator.sweep.workers import shortage_of_gpus, worker_count

    folder = ResultsFolder(checked.folder)
    sweep = resolve(checked, base, folder, trusts_code=trusts_code)
    made = make_plan(sweep, surveys(sweep, folder.artifacts()), folder.artifacts())
    speeds = probed_speeds(made, folder) if probe else speeds_of(checked, folder)
    found, start = costs(made, folder, speeds), starting(made, folder)
    missing = missing_stages(made, folder.artifacts())
    decomposed, multiplied = (kernels(made, missing, iterative=iterative) for iterative in (False, True))
    workers = worker_count(sweep)
    device = this_device(checked, workers)
    fitting = [
        *fitting_notes(sweep, made.variants[0].survey, device),
        *rows_notes(made),
        *joined_notes(made, missing),
        *stacks_notes(made, missing),
    ]
    if (shortage := shortage_of_gpus(checked, workers)) is not None:
        fitting.append(f"`run` would refuse this here: {shortage}")  # a cluster may have more
    notes = [*fitting, *product_notes(made, found, folder), *notes_of(made)]
    if (said := results_elsewhere(checked, base)) is not None:
        notes.append(said)
    if as_json:
        facts = {
            "cells": made.n_cells,
            "variants": [asdict(variant.choice) for variant in made.variants],
            "layer_sets": [asdict(layer_set) for layer_set in made.variants[0].layer_sets],
            "groups": [asdict(group) for group in made.variants[0].survey.groups],
            "classes": {each.choice.task or checked.name: classes_facts(each.survey) for each in made.variants},
            "stages": [asdict(cost) for cost in found],
            "starting": None if start is None else asdict(start),
            "decompositions": decomposed.missing,
            "iterative_solves": multiplied.missing,
            "notes": notes,
            "workers": workers,
            "folder": str(folder.root),
        }
        print(json.dumps(facts, indent=1))
    else:
        console = Terminal()
        table, times = costs_table(found, start), _times_said(found, start, speeds, workers)
        _print_plan(console, made, table, times, [*_kernels_said(made, decomposed, multiplied), *notes])
        console.print(f"results: {folder.root}", soft_wrap=True)
    if any(cost.missing for cost in found):
        refuse_untrusted_code(sweep)
        refuse_unwritable(folder.root)
    refuse_what_cannot_fit(made, folder)
    refuse_model_that_cannot_fit(sweep, made.variants[0].survey, device)


def _times_said(found: "Sequence[Cost]", start: "Starting | None", speeds: "Speeds | None", workers: int) -> str:
    known = [cost.seconds for cost in found if cost.seconds is not None]
    guessed = any(cost.missing and not cost.measured for cost in found)
    before = 0.0 if start is None else start.seconds
    said = f"about {human_seconds(sum(known) + before)} on {workers} worker{'s' if workers > 1 else ''}"
    if start is not None:
        what = "starting Ray and loading libraries" if start.workers_up else "loading libraries"
        said += f", {human_seconds(before)} of it for {what}"
    if speeds is None and guessed:
        return f"{said}, where times are known: those of a GPU that is not here come with --probe, where it is"
    return said + (f", estimated from {speeds.source} (~)" if guessed and speeds else "")


def _kernels_said(made: "Plan", decomposed: "Kernels", multiplied: "Kernels") -> Iterator[str]:
    if decomposed.planned:
        yield (
            f"{decomposed.missing} decompositions to compute, of {decomposed.planned} kernels; each serves every lambda"
        )
    if multiplied.planned:
        lowest = f"{made.lambdas[0]:g}" + (" trace/M" if made.sweep.spec.grid.lambdas.scale == "trace" else "")
        kernels = "kernel" if multiplied.missing == 1 else "kernels"
        yield (
            f"{multiplied.missing} {kernels} to multiply with, of {multiplied.planned}; each serves every lambda "
            f"from {lowest} on"
        )


def _print_plan(console: Terminal, made: Any, table: "Table", times: str, notes: list[str]) -> None:
    from orchestrator.cli.classes_view import classes_said

    grid, first = made.sweep.spec.grid, made.variants[0]
    sizes = first.sizes
    zero = sum(bool(group.zero_parts) for group in first.survey.groups)
    left = ", ".join(sorted({part for group in first.survey.groups for part in group.zero_parts}))
    axes = {
        "task": grid.tasks,
        "rank": grid.ranks,
        "learning rate": grid.learning_rates,
        "layer set": first.layer_sets,
        "lambda": made.lambdas,
        "seed": set(grid.seeds),
        "training-set size": set(grid.n_train),
    }
    of_each = [f"{len(values)} {what}{'' if len(values) == 1 else 's'}" for what, values in axes.items() if values]
    console.print(f"{made.n_cells} cells = {' x '.join(of_each)}")
    console.print(
        f"{len(sizes.groups)} groups, {sizes.n_parameters} parameters, {sizes.shard_examples} examples a shard"
        + (f"; {left} of {zero} groups have no gradient at the start and are left out" if zero else ""),
    )
    for line in classes_said(made):
        console.print(line, soft_wrap=True)
    console.print()
    console.print(table)
    console.print()
    console.print(times)
    console.print("memory is that of one worker for Jacobians and kernels, beside the model and its activations")
    for note in notes:
        console.print(note)


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

    Example: ntksweep run examples/quickstart.yaml grid.seeds=[0,1] --workers 4
    """
    from orchestrator.cli.progress import Bars
    from orchestrator.engine.run import run as run_sweep
    from orchestrator.engine.torchrun import follow, launched_group
    from orchestrator.spec.naming_lines import naming_lines
    from orchestrator.sweep.folder import ResultsFolder
    from slurm.ray.gpus import allocator_settings

    given, base = given_spec(spec, overrides)
    checked = _override(given, executor, workers)
    if checked.compute.device == "cuda":
        os.environ.update(allocator_settings(os.environ))  # torch, which reads them once, is not loaded yet
    with naming_lines(checked), launched_group(checked) as process_group:
        if not process_group.leads:
            end_at_once()  # it waits for the first one, in calls that answer no signal
            follow(checked, base, process_group, trusts_code=trust_remote_code)
            return
        folder = ResultsFolder(checked.folder)
        with (
            _boarded(checked, folder, tensorboard) as look,
            Bars(Terminal(stderr=True), look) as bars,
            said_at_once(bars.note),
        ):
            if (said := results_elsewhere(checked, base)) is not None:
                bars.note(said)
            ending = run_sweep(
                checked,
                base,
                bars,
                on_change=on_change,
                process_group=process_group,
                trusts_code=trust_remote_code,
            )
    report = ending.report
    if as_json:
        facts = {
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
        print(json.dumps(facts, indent=1))
    else:
        _print_ending(ending, folder, show_trace=traceback_wanted())
    if report.failures:
        raise typer.Exit(ExitCode.FAILED_STAGES)


@contextmanager
def _boarded(spec: "Spec", folder: "ResultsFolder", into: Path | None) -> "Iterator[Callable[[], Status]]":
    """Return a function that reads how the sweep stands, and writes what is new for TensorBoard, if that is asked for.

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


def _print_ending(ending: Any, folder: "ResultsFolder", *, show_trace: bool) -> None:
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
    if ending.was_finished:
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
