"""The command that chooses layer sets before training: select."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.text import Text

from orchestrator.cli.arguments import FolderArgument, JsonOption, TrustOption, sweep_folder
from orchestrator.cli.render import number, rows_table
from orchestrator.cli.terminal import Terminal
from orchestrator.standard_json import standard_json

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.results.selection.criteria import Criterion
    from orchestrator.results.selection.greedy import Selection
    from orchestrator.results.selection.ranking import Ranking
    from orchestrator.sweep.folder import ResultsFolder, Sweep

DIGITS = 4


def select(
    path: FolderArgument,
    *,
    by: Annotated[
        str | None,
        typer.Option(
            help="condition_fixed, condition_relative, effective_rank, alignment, gcv, leave_one_out, evidence, "
            "eval_loss or train_loss; kappa, rank, kta, loo and loss name them too. Without it gcv, or leave_one_out "
            "where gcv is empty.",
            metavar="CRITERION",
        ),
    ] = None,
    greedy: Annotated[
        int | None,
        typer.Option(
            help="Choose this many layers, one after the other, from stored kernel blocks.", metavar="K", min=1
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="The task to select for, if the grid has several.", metavar="NAME")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="The rank of LoRA to select for, if the grid has several.", metavar="R", min=1)
    ] = None,
    trust_remote_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rank the layer sets of a sweep by their kernels, without training, and say what the ranking uses.

    Example: ntksweep select results/quickstart --by condition_relative --greedy 3
    """
    from orchestrator.results.loading import load
    from orchestrator.results.selection.choosing import choose
    from orchestrator.results.selection.criteria import criterion_named, usual_criterion
    from orchestrator.results.selection.ranking import rank as rank_layer_sets
    from orchestrator.sweep.choices import choices

    folder = sweep_folder(path)
    sweep = replace(folder.existing(), trusts_code=trust_remote_code)
    spec = sweep.spec
    criterion = usual_criterion(spec) if by is None else criterion_named(by, spec)
    position = choose(spec, task, rank)
    ranking = rank_layer_sets(load(folder.root), criterion, choices(spec)[position])
    selection = None if greedy is None else _select_layers(sweep, folder, criterion, greedy, position)
    if as_json:
        print(standard_json(asdict(ranking) | ({"greedy": asdict(selection)} if selection else {}), indent=1))
        return
    console = Terminal()
    console.print(_ranking_table(ranking))
    for line in _what_it_rests_on(ranking):
        console.print(line)
    if selection is not None:
        console.print()
        console.print(_selection_table(selection, criterion))
        for line in _about_selection(selection):
            console.print(line)


def _select_layers(
    sweep: "Sweep", folder: "ResultsFolder", criterion: "Criterion", n_layers: int, position: int
) -> "Selection":
    from orchestrator.plan.plan import make_plan
    from orchestrator.results.selection.greedy import select_layers
    from orchestrator.sweep.survey import kept_surveys

    plan = make_plan(sweep, kept_surveys(sweep, folder.artifacts()), folder.artifacts())
    with Terminal(stderr=True).status("choosing layers"):
        return select_layers(plan.variants[position], plan.solves_of(position), folder, criterion, n_layers)


def _ranking_table(ranking: "Ranking") -> Group:
    rows = [
        (
            each.layer_set,
            number(each.value, DIGITS),
            number(each.lowest, DIGITS),
            number(each.highest, DIGITS),
            str(each.n_parameters),
        )
        for each in ranking.layer_sets
    ]
    criterion = ranking.criterion
    seeds = f"{'geometric ' if criterion.geometric else ''}mean over {ranking.n_seeds} seeds"
    which = "largest" if criterion.large_is_good else "smallest"
    title = f"Layer sets by {criterion.name}, {which} first ({seeds if ranking.n_seeds > 1 else 'one seed'})"
    return _titled(title, rows_table(("layer set", "value", "lowest", "highest", "parameters"), rows))


def _what_it_rests_on(ranking: "Ranking") -> Iterator[str]:
    criterion, lambdas = ranking.criterion, ranking.lambdas
    yield f"{criterion.column}: {criterion.meaning}"
    if criterion.over_lambdas:
        unit = ", in units of trace/M" if ranking.lambda_scale == "trace" else ""
        yield (
            f"Each layer set and seed counts with its best of {len(lambdas)} lambdas, {lambdas[0]:g} to "
            f"{lambdas[-1]:g}{unit}."
        )
    evaluation = f" and {ranking.n_eval} evaluation" if criterion.column == "eval_loss" else ""
    yield (
        f"It rests on {ranking.n_train} training{evaluation} examples and {ranking.n_seeds} "
        f"seed{'s' if ranking.n_seeds > 1 else ''}; lowest and highest are over seeds. Nothing was trained for it."
    )
    if criterion.geometric and ranking.n_unresolved:
        yield (
            f"{ranking.n_unresolved} of {ranking.n_kernels} kernels have a smallest eigenvalue below the noise floor "
            "(condition_number_resolved is false): their plain condition_number is noise, and the numbers "
            "here compare sigma_max with s, not with sigma_min."
        )
    if criterion.column == "gcv" and ranking.n_repeats:
        yield (
            f"{ranking.n_repeats} training examples of a seed repeat an earlier text: their kernel is singular, and "
            "gcv then falls toward 0 with lambda, whatever the error is; take `--by leave_one_out`, or "
            "task.distinct_texts: true."
        )
    if ranking.unfinished:
        yield f"Not finished, and not ranked: {', '.join(ranking.unfinished)}"


def _selection_table(selection: "Selection", criterion: "Criterion") -> Group:
    first = selection.seeds[0]
    baselines = list(first.steps[0].baselines)
    rows = [
        (
            f"+ layer {step.layer}",
            number(step.value, DIGITS),
            *(number(step.baselines[name], DIGITS) for name in baselines),
            f"{agreeing} of {len(selection.seeds)}",
        )
        for step, agreeing in zip(first.steps, selection.agreement, strict=True)
    ]
    headings = ("step", "value", *(name.replace("_", " ") for name in baselines), "seeds agree")
    title = f"Greedy forward selection by {criterion.name} (seed {first.seed}), beside as many layers chosen otherwise"
    return _titled(title, rows_table(headings, rows))


def _titled(title: str, table: "Table") -> Group:
    # A table breaks its own title to its width, which is narrower than most titles.
    return Group(Text(title, style="italic"), table)


def _about_selection(selection: "Selection") -> Iterator[str]:
    from orchestrator.results.selection.baselines import RANDOM_SETS
    from orchestrator.sweep.layer_sets import compress

    for each in selection.seeds:
        layers = ", ".join(str(step.layer) for step in each.steps)
        yield f"seed {each.seed} chose {layers} with {number(each.steps[-1].value, DIGITS)}"
    yield (
        f"Chosen among layers {compress(selection.layers)}, from stored kernel blocks. random: mean over up to "
        f"{RANDOM_SETS} sets of layers; last: the last layers; smallest and largest weight condition: the layers whose "
        "adapted weights have the smallest and the largest condition number."
    )
    if selection.without_weights:
        yield f"No baselines by the condition number of weights: {selection.without_weights}"
