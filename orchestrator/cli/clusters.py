"""The commands that send a sweep to a cluster and look after it there: submit, resume, cancel, wait, logs."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.arguments import (
    FolderArgument,
    JsonOption,
    OnChangeOption,
    OverridesArgument,
    SpecArgument,
    TrustOption,
    as_typed,
    given_spec,
    possible_path,
    sweep_folder,
)
from orchestrator.cli.render import costs_table, human_seconds
from orchestrator.cli.terminal import Terminal, say
from orchestrator.errors import SpecError
from orchestrator.sweep.on_change import OnChange

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan
    from orchestrator.sweep.folder import ResultsFolder

ProfileOption = Annotated[
    Path,
    typer.Option(
        "--profile",
        "-p",
        metavar="PROFILE",
        help="The cluster's YAML file.",
        show_default=False,
        callback=possible_path,
    ),
]
AllocationsOption = Annotated[
    int | None, typer.Option(help="Allocations that share the sweep; overrides the profile.", min=1)
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check and print everything, submit nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Submit without asking.")]
TRUST_PROFILE = "--trust-profile"
"""The option that allows the commands of a profile kept in a results folder when no user can be asked."""

AddOption = Annotated[bool, typer.Option("--add", help="Submit even if allocations are queued or running.")]


def submit(
    spec: SpecArgument,
    overrides: OverridesArgument = None,
    *,
    profile: ProfileOption,
    allocations: AllocationsOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    add: AddOption = False,
    on_change: OnChangeOption = OnChange.REFUSE,
    trust_remote_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a sweep to Slurm: say what it costs, show the script, ask, and submit.

    Example: ntksweep submit examples/quickstart.yaml --profile cluster.yaml --allocations 3
    """
    from orchestrator.cluster.profiles import read_profile
    from orchestrator.cluster.submitting import prepare
    from orchestrator.engine.run import resolve
    from orchestrator.plan.plan import make_plan
    from orchestrator.spec.naming_lines import naming_lines
    from orchestrator.sweep.folder import ResultsFolder
    from orchestrator.sweep.survey import surveys

    (checked, base), wanted = given_spec(spec, overrides), read_profile(profile)
    folder = ResultsFolder(checked.folder)
    with naming_lines(checked):
        given = resolve(checked, base, folder, trusts_code=trust_remote_code)
        sweep = folder.settle(given, on_change, lambda kept: Terminal(stderr=True).print(kept, style="yellow"))
        plan = make_plan(sweep, surveys(sweep, folder.artifacts()), folder.artifacts())
    if _nothing_is_missing(plan, folder, as_json=as_json):
        return
    offer = prepare(plan, folder, wanted, allocations or wanted.allocations)
    _offer(offer, folder, dry_run=dry_run, yes=yes, add=add, as_json=as_json)


def resume(
    path: FolderArgument,
    *,
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile", "-p", metavar="PROFILE", help="Another profile than the last one.", callback=possible_path
        ),
    ] = None,
    allocations: AllocationsOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    add: AddOption = False,
    trust_profile: Annotated[
        bool, typer.Option(TRUST_PROFILE, help="With --yes: run the commands of the profile that the folder keeps.")
    ] = False,
    trust_remote_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Submit allocations for what is missing of a sweep; stages that failed are tried again.

    Example: ntksweep resume results/quickstart --allocations 1
    """
    from orchestrator.cluster.submitting import commands_of, prepare, profile_to_resume_with
    from orchestrator.plan.plan import make_plan
    from orchestrator.sweep.survey import surveys

    folder = sweep_folder(path)
    sweep = replace(folder.existing(), trusts_code=trust_remote_code)
    plan = make_plan(sweep, surveys(sweep, folder.artifacts()), folder.artifacts())
    if _nothing_is_missing(plan, folder, as_json=as_json):
        return
    wanted = profile_to_resume_with(folder, profile)
    kept = commands_of(wanted) if profile is None else []
    if kept:
        _show_commands(kept, folder, is_allowed=dry_run or not yes or trust_profile, as_json=as_json)
    offer = prepare(plan, folder, wanted, allocations or wanted.allocations)
    _offer(offer, folder, dry_run=dry_run, yes=yes, add=add, as_json=as_json)


def _show_commands(commands: list[str], folder: "ResultsFolder", *, is_allowed: bool, as_json: bool) -> None:
    """Show the commands of a folder's profile, which may come from somebody else."""
    said = [
        f"the profile is the one that {as_typed(folder.root)} keeps; jobs run these lines of it as you:",
        *(f"  {each}" for each in commands),
    ]
    if not is_allowed:
        raise SpecError(
            "\n".join(said)
            + f"\n--yes alone does not allow that: add {TRUST_PROFILE} if they are yours, name your own "
            "file with --profile, or leave out --yes to be asked"
        )
    Terminal(stderr=as_json).print("\n".join(said), style="yellow", soft_wrap=True)


def _nothing_is_missing(plan: "Plan", folder: "ResultsFolder", *, as_json: bool) -> bool:
    """Return whether every stage of a sweep is finished; if so, say it and write the tables, which may be missing."""
    from orchestrator.engine.run import noted_damage
    from orchestrator.plan.plan import missing_stages
    from orchestrator.results.tables.write import collect

    if missing_stages(plan, folder.artifacts(), noted_damage(plan, folder)):
        return False
    collect(plan, folder)
    said = f"nothing is missing: {as_typed(folder.tables)} holds every cell"
    Terminal(stderr=as_json).print(said, soft_wrap=True)
    return True


def _offer(offer: Any, folder: "ResultsFolder", *, dry_run: bool, yes: bool, add: bool, as_json: bool) -> None:
    from orchestrator.cluster.submitting import refuse_second_submission, send

    console = Terminal(stderr=as_json)
    if not add:
        refuse_second_submission(folder)
    _print_offer(console, offer)
    if dry_run:
        console.print("this was a dry run; nothing was submitted")
        return
    if not yes:
        _ask(offer)
    submission = send(
        offer,
        folder,
        add=add,
        on_submitted=lambda job, size: console.print(f"submitted job {job}: {_allocations(size)}"),
    )
    if as_json:
        print(json.dumps(asdict(submission) | {"folder": str(folder.root)}, indent=1))
        return
    for command in ("status", "wait", "logs", "cancel"):
        console.print(f"  ntksweep {command} {as_typed(folder.root)}", soft_wrap=True)


def _print_offer(console: Terminal, offer: Any) -> None:
    from orchestrator.spec.quantities import human_bytes

    profile = offer.profile
    console.print(costs_table(offer.costs, offer.starting))
    console.print()
    shape = f"{profile.nodes} node{'s' if profile.nodes > 1 else ''} for {human_seconds(profile.minutes * 60)}"
    console.print(f"{_allocations(offer.count)} of {shape}: at most {offer.most_node_hours:.3g} node hours")
    start = offer.starting
    started = "" if start is None else f", {human_seconds(start.seconds)} of it for starting Ray and loading libraries"
    guessed = "" if all(cost.measured for cost in offer.costs if cost.missing) else ", by the speed of this machine"
    console.print(
        f"about {human_seconds(offer.estimated_hours * 3600)} once they all run{started}{guessed}; the wait in "
        "Slurm's queue is not known; "
        f"{human_bytes(sum(cost.written_bytes for cost in offer.costs))} on disk",
    )
    if offer.count < offer.wanted:
        console.print(f"{offer.wanted} were asked for; you may queue no more", style="yellow")
    for node, why in sorted(offer.left_out.items()):
        console.print(f"{node} is left out for a day: {why}", style="yellow", soft_wrap=True)
    if offer.submission.trust_remote_code:
        console.print("the allocations may run Python code that comes with the model", style="yellow")
    for text in offer.scripts:
        console.print()
        console.print(text.strip(), soft_wrap=True)
    console.print()


def _ask(offer: Any) -> None:
    if not sys.stdin.isatty():
        raise SpecError("there is no terminal to ask whether to submit this; give --yes, or --dry-run to see it only")
    typer.confirm(f"Submit {_allocations(offer.count)}?", default=False, abort=True)


def cancel(path: FolderArgument, as_json: JsonOption = False) -> None:
    """Cancel the allocations of a sweep that are queued or running; finished stages are kept.

    Example: ntksweep cancel results/quickstart
    """
    from orchestrator.cluster.allocations import alive, allocations_of, cancel_allocations

    folder = sweep_folder(path)
    living = alive(allocations_of(folder))
    cancel_allocations(living)
    if as_json:
        print(json.dumps({"cancelled": [each.job for each in living]}))
        return
    named = f": {', '.join(each.job for each in living)}" if living else ""
    say(f"cancelled {_allocations(len(living))}{named}")
    if elsewhere := _processes_outside_slurm(folder):
        say(
            f"a run that no Slurm job started goes on, by {elsewhere}: Ctrl-C in its own terminal stops it, and what "
            "is finished is kept"
        )
    if living:
        say(f"go on with: ntksweep resume {as_typed(folder.root)}")


def _processes_outside_slurm(folder: "ResultsFolder") -> str:
    """Return the processes that compute stages of a sweep and belong to no Slurm job; empty if none do."""
    found: dict[str, set[str]] = {}
    for holder in folder.claims().held().values():
        if holder.get("slurm_job") is None:
            found.setdefault(str(holder.get("host")), set()).add(str(holder.get("process")))
    return "; ".join(
        f"process{'es' if len(those) > 1 else ''} {', '.join(sorted(those))} on {host}"
        for host, those in sorted(found.items())
    )


def wait(
    path: FolderArgument,
    timeout: Annotated[float | None, typer.Option(help="Stop waiting after this many seconds.", min=0)] = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until no allocation of a sweep is queued or running; asks the scheduler less and less often.

    Exit status: 0 if every cell is in the tables, 1 if stages failed, 3 otherwise.

    Example: ntksweep wait results/quickstart && ntksweep show results/quickstart
    """
    from orchestrator.cli.watching import status
    from orchestrator.cluster.waiting import wait_for_allocations

    folder = sweep_folder(path)
    ended = wait_for_allocations(folder, timeout)
    if not ended:
        Terminal(stderr=True).print("allocations are still queued or running")
    status(path, as_json=as_json)


def logs(
    path: FolderArgument,
    job: Annotated[
        str | None, typer.Option(help="Show the logs of this job, its nodes and its processes.", metavar="JOB")
    ] = None,
    cell: Annotated[str | None, typer.Option(help="Show the events of this cell.", metavar="CELL_ID")] = None,
    lines: Annotated[int, typer.Option(help="Last lines of each log to show.", min=1)] = 40,
    as_json: JsonOption = False,
) -> None:
    """Show the logs of a sweep's allocations and runs, or what happened to one cell, stage by stage.

    Example: ntksweep logs results/quickstart --job 4711
    """
    from orchestrator.cluster.logs import logs_of
    from orchestrator.cluster.tracing import trace_cell

    folder = sweep_folder(path)
    if cell is not None:
        traced = trace_cell(folder, cell)
        if as_json:
            print(json.dumps([asdict(each) for each in traced], indent=1))
            return
        for event in traced:
            say(event.line)
        return
    found = logs_of(folder, job, lines)
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=1))
        return
    for each in found:
        say(f"==> {each.path} <==")
        say(each.text.rstrip() + "\n")


def _allocations(count: int) -> str:
    return f"{count} allocation{'' if count == 1 else 's'}"
