"""Ranking the layer sets of a finished sweep by a criterion."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from orchestrator.errors import ResultsError
from orchestrator.plan.index import plan_index
from orchestrator.results.loading import Results
from orchestrator.results.selection.choosing import cells_of
from orchestrator.results.selection.criteria import Criterion
from orchestrator.spec import Spec
from orchestrator.spec.sections import TaskSection
from orchestrator.sweep.choices import Choice


@dataclass(frozen=True)
class RankedLayerSet:
    """A layer set with its values of a criterion.

    Attributes:
        layer_set: its name.
        value: mean of the criterion over seeds.
        lowest, highest: smallest and largest value of a seed.
        n_parameters: its parameters, without structurally zero ones.
    """

    layer_set: str
    value: float
    lowest: float
    highest: float
    n_parameters: int


@dataclass(frozen=True)
class Ranking:
    """The layer sets of a sweep, the best first, and the data behind their order.

    Attributes:
        criterion: the criterion of the ranking.
        layer_sets: those whose cells are all finished; equally good ones in the grid's order.
        unfinished: names of the others, which are not ranked.
        n_train: training examples: the largest training-set size of the grid.
        n_eval: evaluation examples.
        n_seeds: number of seeds in the means.
        lambdas: regularization strengths, ascending, as the spec gives them.
        lambda_scale: absolute, or trace: in units of trace/M.
        n_kernels: kernels of the ranked layer sets: one a set and seed.
        n_unresolved: those whose smallest eigenvalue does not exceed the noise floor.
        n_repeats: most training examples of a seed that repeat the text of an earlier one.
    """

    criterion: Criterion
    layer_sets: list[RankedLayerSet]
    unfinished: list[str]
    n_train: int
    n_eval: int
    n_seeds: int
    lambdas: list[float]
    lambda_scale: str
    n_kernels: int
    n_unresolved: int
    n_repeats: int


def rank(results: Results, criterion: Criterion, choice: Choice | None = None) -> Ranking:
    """Rank the layer sets of a sweep, at its largest training-set size.

    A layer set has one value for each seed: if it depends on lambda, the value of that seed's best lambda.

    Args:
        results: the tables of the sweep.
        criterion: the criterion.
        choice: the variant whose layer sets are ranked; None for the only one.

    Raises:
        ResultsError: no layer set is finished.
    """
    spec = results.folder.existing().spec
    names = plan_index(results.folder).layer_sets
    seeds, lambdas, n_train = set(spec.grid.seeds), spec.grid.lambdas.numbers(), max(spec.grid.n_train)
    chosen = cells_of(choice or Choice())
    about = ["layer_set", "seed", "n_train", "n_parameters", "condition_number_resolved"]
    columns = [*chosen, *about, "missing_estimates", "repeats_in_train", criterion.column]
    cells = results.cells.to_pandas(columns)
    for name, value in {**chosen, "n_train": n_train}.items():
        cells = cells[cells[name] == value]
    by_set = {str(name): rows for name, rows in cells.groupby("layer_set", sort=False)}
    whole = [name for name in names if name in by_set and len(by_set[name]) == len(seeds) * len(lambdas)]
    if not whole:
        raise ResultsError("no layer set of the sweep is finished; `ntksweep run` goes on")
    _refuse_empty(pd.concat([by_set[name] for name in whole]), criterion)
    ranked = [_ranked(name, by_set[name], criterion) for name in whole]
    resolved = pd.concat([by_set[name].drop_duplicates("seed")["condition_number_resolved"] for name in whole])
    return Ranking(
        criterion=criterion,
        layer_sets=sorted(ranked, key=lambda each: criterion.badness(each.value)),
        unfinished=[name for name in names if name not in whole],
        n_train=n_train,
        n_eval=_task(spec, choice).n_eval,
        n_seeds=len(seeds),
        lambdas=list(lambdas),
        lambda_scale=spec.grid.lambdas.scale,
        n_kernels=len(resolved),
        n_unresolved=int((~resolved.astype(bool)).sum()),
        n_repeats=int(max(by_set[name]["repeats_in_train"].max() for name in whole)),
    )


def _refuse_empty(cells: pd.DataFrame, criterion: Criterion) -> None:
    """Raise ResultsError if no cell has a value, with the reason if the cells give it."""
    if cells[criterion.column].notna().any():
        return
    reasons = [text for text in cells["missing_estimates"].dropna().unique() if f"{criterion.column}: " in text]
    why = f" ({reasons[0]})" if reasons else ""
    raise ResultsError(f"{criterion.column} is empty in every cell{why}; rank by another criterion")


def _task(spec: Spec, choice: Choice | None) -> TaskSection:
    named = choice.task if choice else None
    return spec.grid.tasks[named] if named is not None and spec.grid.tasks else spec.task


def _ranked(name: str, rows: pd.DataFrame, criterion: Criterion) -> RankedLayerSet:
    of_seeds = np.array([criterion.best(values) for _, values in rows.groupby("seed")[criterion.column]])
    return RankedLayerSet(
        layer_set=name,
        value=criterion.mean(of_seeds),
        lowest=float(of_seeds.min()),
        highest=float(of_seeds.max()),
        n_parameters=int(rows["n_parameters"].iloc[0]),
    )
