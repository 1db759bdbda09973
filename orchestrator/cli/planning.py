"""The commands that say what a spec means before it is run: schema, plan."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.arguments import (
    JsonOption,
    OverridesArgument,
    SpecArgument,
    TrustOption,
    given_spec,
    results_elsewhere,
)
from orchestrator.cli.render import costs_table, human_seconds
from orchestrator.cli.terminal import Terminal
from orchestrator.errors import ChangedError, ResultsError

if TYPE_CHECKING:
    from orchestrator.plan.estimate import Cost, Kernels
    from orchestrator.plan.plan import Plan
    from orchestrator.plan.speeds import Speeds
    from orchestrator.plan.starting import Starting
    from orchestrator.spec import Spec
    from orchestrator.store.stage import Stage
    from orchestrator.sweep.folder import ResultsFolder, Sweep
    from orchestrator.sweep.model_memory import Device


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

    Example: ntksweep plan examples/quickstart.yaml 'grid.seeds=[0,1]'
    """
    from orchestrator.spec.naming_lines import naming_lines

    checked, base = given_spec(spec, overrides)
    with naming_lines(checked):
        _plan(checked, base, probe=probe, trusts_code=trust_remote_code, as_json=as_json)


def _plan(checked: "Spec", base: Path, *, probe: bool, trusts_code: bool, as_json: bool) -> None:
    from orchestrator.engine.run import resolve
    from orchestrator.plan.estimate import refuse_what_cannot_fit
    from orchestrator.plan.plan import make_plan
    from orchestrator.store.files import refuse_unwritable
    from orchestrator.sweep.folder import ResultsFolder
    from orchestrator.sweep.model_memory import refuse_model_that_cannot_fit
    from orchestrator.sweep.settings import refuse_untrusted_code
    from orchestrator.sweep.survey import surveys

    folder = ResultsFolder(checked.folder)
    sweep = resolve(checked, base, folder, trusts_code=trusts_code)
    costed = _costed(make_plan(sweep, surveys(sweep, folder.artifacts()), folder.artifacts()), folder, probe=probe)
    notes = _notes(costed, folder)
    if (said := results_elsewhere(checked, base)) is not None:
        notes.append(said)
    if (said := _refusal(sweep, folder)) is not None:
        notes.append(f"`run` would refuse this: {said}")
    if as_json:
        print(json.dumps(_facts(costed, notes, folder), indent=1))
    else:
        console = Terminal()
        _print_plan(console, costed, [*_kernels_said(costed), *notes])
        console.print(f"results: {folder.root}", soft_wrap=True)
    # What would keep the plan from being run is said last, beside everything that may show a way out.
    if any(cost.missing for cost in costed.costs):
        refuse_untrusted_code(sweep)
        refuse_unwritable(folder.root)
    refuse_what_cannot_fit(costed.plan, folder)
    refuse_model_that_cannot_fit(sweep, costed.plan.variants[0].survey, costed.device)


def _refusal(sweep: "Sweep", folder: "ResultsFolder") -> str | None:
    """Return on one line why `run` would not go on in the results folder; None if it would."""
    from orchestrator.sweep.on_change import OnChange

    try:
        folder.settle(sweep, OnChange.REFUSE)
    except (ChangedError, ResultsError) as error:
        return str(error).replace(":\n  ", ": ").replace("\n  ", "; ").replace("\n", ". ")
    return None


@dataclass(frozen=True)
class _CostedPlan:
    """A plan, and what it costs on this machine.

    Attributes:
        plan: the plan.
        missing: its stages that are to be computed.
        costs: the cost of each kind of stage.
        starting: the time before the first stage; None if no stage is missing.
        speeds: those of a worker; None where they are not known.
        workers: number of workers.
        device: what the model computes on.
        decomposed: the kernels that are decomposed.
        multiplied: the kernels that are multiplied with instead.
    """

    plan: "Plan"
    missing: "list[Stage]"
    costs: "list[Cost]"
    starting: "Starting | None"
    speeds: "Speeds | None"
    workers: int
    device: "Device | None"
    decomposed: "Kernels"
    multiplied: "Kernels"


def _costed(plan: "Plan", folder: "ResultsFolder", *, probe: bool) -> _CostedPlan:
    from orchestrator.plan.estimate import costs, kernels
    from orchestrator.plan.plan import missing_stages
    from orchestrator.plan.probe import probed_speeds
    from orchestrator.plan.speeds import speeds_of
    from orchestrator.plan.starting import starting
    from orchestrator.sweep.model_memory import this_device
    from orchestrator.sweep.workers import worker_count

    spec = plan.sweep.spec
    speeds = probed_speeds(plan, folder) if probe else speeds_of(spec, folder)
    missing = missing_stages(plan, folder.artifacts())
    workers = worker_count(plan.sweep)
    return _CostedPlan(
        plan=plan,
        missing=missing,
        costs=costs(plan, folder, speeds),
        starting=starting(plan, folder),
        speeds=speeds,
        workers=workers,
        device=this_device(spec, workers),
        decomposed=kernels(plan, missing, iterative=False),
        multiplied=kernels(plan, missing, iterative=True),
    )


def _notes(costed: _CostedPlan, folder: "ResultsFolder") -> list[str]:
    """Return what the plan's user should know: first where everything fits, then about the numbers."""
    from orchestrator.cli.notes import joined_notes, notes_of, product_notes, rows_notes
    from orchestrator.plan.stacks_note import stacks_notes
    from orchestrator.sweep.model_memory import fitting_notes
    from orchestrator.sweep.workers import shortage_of_gpus

    plan = costed.plan
    fitting = [
        *fitting_notes(plan.sweep, plan.variants[0].survey, costed.device),
        *rows_notes(plan),
        *joined_notes(plan, costed.missing),
        *stacks_notes(plan, costed.missing),
    ]
    if (shortage := shortage_of_gpus(plan.sweep.spec, costed.workers)) is not None:
        fitting.append(f"`run` would refuse this here: {shortage}")  # a cluster may have more
    return [*fitting, *product_notes(plan, costed.costs, folder), *notes_of(plan)]


def _facts(costed: _CostedPlan, notes: list[str], folder: "ResultsFolder") -> dict[str, Any]:
    """Return what `--json` prints."""
    from orchestrator.cli.classes_view import classes_facts

    plan, start = costed.plan, costed.starting
    first = plan.variants[0]
    return {
        "cells": plan.n_cells,
        "variants": [asdict(variant.choice) for variant in plan.variants],
        "layer_sets": [asdict(layer_set) for layer_set in first.layer_sets],
        "groups": [asdict(group) for group in first.survey.groups],
        "classes": {each.choice.task or plan.sweep.spec.name: classes_facts(each.survey) for each in plan.variants},
        "stages": [asdict(cost) for cost in costed.costs],
        "starting": None if start is None else asdict(start),
        "decompositions": costed.decomposed.missing,
        "iterative_solves": costed.multiplied.missing,
        "notes": notes,
        "workers": costed.workers,
        "folder": str(folder.root),
    }


def _times_said(costed: _CostedPlan) -> str:
    start, speeds, workers = costed.starting, costed.speeds, costed.workers
    known = [cost.seconds for cost in costed.costs if cost.seconds is not None]
    guessed = any(cost.missing and not cost.measured for cost in costed.costs)
    before = 0.0 if start is None else start.seconds
    said = f"about {human_seconds(sum(known) + before)} on {workers} worker{'s' if workers > 1 else ''}"
    if start is not None:
        what = "starting Ray and loading libraries" if start.workers_up else "loading libraries"
        said += f", {human_seconds(before)} of it for {what}"
    if speeds is None and guessed:
        return f"{said}, where times are known: those of a GPU that is not here come with --probe, where it is"
    return said + (f", estimated from {speeds.source} (~)" if guessed and speeds else "")


def _kernels_said(costed: _CostedPlan) -> Iterator[str]:
    decomposed, multiplied, grid = costed.decomposed, costed.multiplied, costed.plan.sweep.spec.grid
    if decomposed.planned:
        yield (
            f"{decomposed.missing} decompositions to compute, of {decomposed.planned} kernels; each serves every lambda"
        )
    if multiplied.planned:
        lowest = f"{costed.plan.lambdas[0]:g}" + (" trace/M" if grid.lambdas.scale == "trace" else "")
        kernels = "kernel" if multiplied.missing == 1 else "kernels"
        yield (
            f"{multiplied.missing} {kernels} to multiply with, of {multiplied.planned}; each serves every lambda "
            f"from {lowest} on"
        )


def _print_plan(console: Terminal, costed: _CostedPlan, notes: list[str]) -> None:
    from orchestrator.cli.classes_view import classes_said

    plan = costed.plan
    grid, first = plan.sweep.spec.grid, plan.variants[0]
    sizes = first.sizes
    zero = sum(bool(group.zero_parts) for group in first.survey.groups)
    left = ", ".join(sorted({part for group in first.survey.groups for part in group.zero_parts}))
    axes = {
        "task": grid.tasks,
        "rank": grid.ranks,
        "learning rate": grid.learning_rates,
        "layer set": first.layer_sets,
        "lambda": plan.lambdas,
        "seed": set(grid.seeds),
        "training-set size": set(grid.n_train),
    }
    of_each = [f"{len(values)} {what}{'' if len(values) == 1 else 's'}" for what, values in axes.items() if values]
    console.print(f"{plan.n_cells} cells = {' x '.join(of_each)}")
    unit = "in units of trace/M" if grid.lambdas.scale == "trace" else "on the absolute scale"
    lowest, highest = (f"{end:g}" for end in (min(plan.lambdas), max(plan.lambdas)))
    console.print(f"lambda {lowest if lowest == highest else f'{lowest} to {highest}'}, {unit}")
    console.print(
        f"{len(sizes.groups)} groups, {sizes.n_parameters} parameters, {sizes.shard_examples} examples a shard"
        + (f"; {left} of {zero} groups have no gradient at the start and are left out" if zero else ""),
    )
    for line in classes_said(plan):
        console.print(line, soft_wrap=True)
    console.print()
    console.print(costs_table(costed.costs, costed.starting))
    console.print()
    console.print(_times_said(costed))
    console.print("memory is that of one worker for Jacobians and kernels, beside the model and its activations")
    for note in notes:
        console.print(note)
