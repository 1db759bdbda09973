"""What the pictures of a sweep have in common: its cells, its variants, and which layer sets stand out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from orchestrator.errors import ResultsError
from orchestrator.results.pictures.picture import MOST_ROWS
from orchestrator.results.pictures.tables import Tables
from orchestrator.results.pictures.work import Work
from orchestrator.spec import Spec

VARIANT = ["task", "adapter_rank", "learning_rate", "n_train"]
"""Columns of `cells` whose values have panels of their own."""

MOST_VARIANTS = 6
"""Variants that are drawn; more panels would make a page too long to read."""

NAMED = 6
"""Layer sets that are named and styled; the others are gray. More colors could not be told apart."""

KERNEL = ("condition_number_relative_sigma", "trace", "effective_rank")
"""What of a kernel is held against what its layer set ends with."""

_COLUMNS = [
    *VARIANT, "layer_set", "seed", "lambda_given", "lambda_scale", "n_eval", "n_parameters", "noise_floor",
    "condition_number_resolved", "majority_accuracy", "initial_eval_loss", "initial_eval_accuracy",
    "initial_eval_pearson", *KERNEL, "eval_loss", "eval_accuracy", "eval_pearson", "eval_in_train", "kernel_size",
    "finetune_n_train", "finetune_eval_in_train",
    "finetune_status", "finetune_eval_loss", "finetune_eval_accuracy", "finetune_eval_pearson",
    "linearized_status", "linearized_eval_loss", "linearized_eval_accuracy", "linearized_eval_pearson",
    "finetune_linearization_error", "finetune_linearization_bound", "difference_eval_relative", "outputs",
    "ntksweep", "torch", "transformers", "git", "device", "host", "finished", "cell_id",
]  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """A task, rank, learning rate and training-set size of a sweep.

    Attributes:
        values: those of `VARIANT`, as in the table; nan where there is none.
        title: the values in which the variants of the sweep differ.
        metric: accuracy or pearson, whichever its task has.
    """

    values: tuple[Any, ...]
    title: str
    metric: str

    def choose(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of this variant, of a table with all or some of its columns."""
        chosen = np.ones(len(frame), dtype=bool)
        for name, value in zip(VARIANT, self.values, strict=True):
            if name in frame:
                alike = frame[name].isna() if pd.isna(value) else frame[name] == value
                # rows about kernels belong to all learning rates
                alike |= frame[name].isna() & (name == "learning_rate")
                chosen &= alike.to_numpy(dtype=bool)
        return frame[chosen]

    def titled(self, text: str) -> str:
        """Return the title of a panel of this variant."""
        return f"{self.title}: {text}" if self.title else text[:1].upper() + text[1:]

    def put_first(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return rows with the values of this variant as their first columns."""
        for position, (name, value) in enumerate(zip(VARIANT, self.values, strict=True)):
            frame.insert(position, name, value)
        return frame


class Measured:
    """The tables of a sweep as its pictures take them.

    Attributes:
        tables: where everything is read from.
        spec: the spec of the sweep.
        work: the stages of the sweep; None where only its tables are there.
        task: the only task that is looked at; None for all.
    """

    def __init__(self, tables: Tables, work: Work | None = None, task: str | None = None) -> None:
        self.tables = tables
        self.spec: Spec = tables.spec
        self.work = work
        self.task = task

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Columns of the table `cells` that pictures need; numbers of what diverged, and infinite ones, are nan.

        Raises:
            ResultsError: they have no such task.
        """
        # files of earlier versions lack columns that were added since
        frame = self.table("cells", _COLUMNS).reindex(columns=_COLUMNS)
        if self.task is not None:
            frame = self._of_task(frame, self.task)
        frame["learning_rate"] = frame["learning_rate"].astype("float64")
        for name in frame.select_dtypes("number"):
            if name not in VARIANT:
                values = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
                frame[name] = np.where(np.isinf(values), np.nan, values)
        for model in ("finetune", "linearized"):
            diverged = frame[f"{model}_status"] == "diverged"
            columns = [name for name in _COLUMNS if name.startswith(f"{model}_") and name != f"{model}_status"]
            frame.loc[diverged, columns] = np.nan
        return frame

    def _of_task(self, frame: pd.DataFrame, task: str) -> pd.DataFrame:
        known = [str(name) for name in frame["task"].unique()]
        if task not in known:
            raise ResultsError(f"there are no cells of a task `{task}`; there are: {', '.join(known) or 'none'}")
        return frame[frame["task"] == task].reset_index(drop=True)

    def table(self, name: str, columns: list[str], where: pc.Expression | None = None) -> pd.DataFrame:
        """Return rows of another table; none if the sweep does not have it."""
        if name not in self.tables.paths:
            return pd.DataFrame(columns=columns)
        found: pd.DataFrame = self.tables.read(name, columns, where).to_pandas()
        return found

    @cached_property
    def trained(self) -> bool:
        """Whether any cell of the sweep was trained."""
        return bool(self.cells["finetune_status"].notna().any())

    @cached_property
    def all_variants(self) -> list[Variant]:
        """All variants that have cells."""
        distinct = self.cells[VARIANT].drop_duplicates()
        varying = [name for name in VARIANT if distinct[name].nunique(dropna=False) > 1]
        return [self._variant(tuple(values), varying) for values in distinct.itertuples(index=False)]

    @cached_property
    def variants(self) -> list[Variant]:
        """The variants that are drawn: those of the largest training sets, `MOST_VARIANTS` at most."""
        largest = max((each.values[-1] for each in self.all_variants), default=0)
        return [each for each in self.all_variants if each.values[-1] == largest][:MOST_VARIANTS]

    def _variant(self, values: tuple[Any, ...], varying: Sequence[str]) -> Variant:
        of_task = self.cells[self.cells["task"] == values[0]]
        metric = "accuracy" if of_task["eval_accuracy"].notna().any() else "pearson"
        labels = {"task": "", "adapter_rank": "rank ", "learning_rate": "learning rate ", "n_train": "n = "}
        shown = zip(VARIANT, values, strict=True)
        title = ", ".join(f"{labels[name]}{_plain(value)}" for name, value in shown if name in varying)
        return Variant(values, title, metric)

    @cached_property
    def left_out(self) -> str:
        """A sentence about the variants that are not drawn; empty if all are."""
        n, of = len(self.variants), len(self.all_variants)
        if n == of:
            return ""
        return (
            f"Of {of} combinations of task, rank, learning rate and training-set size {n} can be seen here; all of "
            "them are in the table."
        )

    @cached_property
    def layer_sets(self) -> list[str]:
        """Names of the layer sets, in the order of the grid."""
        return [str(name) for name in self.cells["layer_set"].unique()]

    @cached_property
    def ranking(self) -> list[str]:
        """Names of the layer sets, first the one with the smallest loss at its best lambda.

        The loss is that of the fine-tuned model if there is one, averaged over seeds; several variants count with the
        sets' ranks. Layer sets that lack seeds come last: seeds differ more than layer sets do.
        """
        outcome = "finetune_eval_loss" if self.trained else "eval_loss"
        place = [*VARIANT, "layer_set"]
        means = self.cells.groupby([*place, "lambda_given"], sort=False, dropna=False)[outcome].mean()
        best = means.groupby(place, sort=False, dropna=False).min().reset_index()
        best["rank"] = best.groupby(VARIANT, sort=False, dropna=False)[outcome].rank(na_option="bottom")
        ranks = best.groupby("layer_set", sort=False)["rank"].mean()
        lacking = {name: name in self.lacking_seeds for name in map(str, ranks.index)}
        ordered = ranks.sort_values(kind="stable").index
        return sorted(map(str, ordered), key=lambda name: lacking[name])

    @cached_property
    def lacking_seeds(self) -> set[str]:
        """Names of the layer sets that have fewer seeds than others, in any variant."""
        outcome = "finetune_eval_loss" if self.trained else "eval_loss"
        known = self.cells[self.cells[outcome].notna()]
        place = [*VARIANT, "layer_set"]
        seeds = known.groupby([*place, "lambda_given"], sort=False, dropna=False)["seed"].nunique()
        least = seeds.groupby(place, sort=False, dropna=False).min().reset_index()
        most = least.groupby(VARIANT, sort=False, dropna=False)["seed"].transform("max")
        return set(map(str, least.loc[least["seed"] < most, "layer_set"]))

    @cached_property
    def styles(self) -> dict[str, int]:
        """The style of each layer set that is named in legends, in the order of the grid."""
        named = set(self.ranking[:NAMED])
        return {name: style for style, name in enumerate(name for name in self.layer_sets if name in named)}

    def best_sets(self, rows_a_set: int) -> list[str]:
        """Return the layer sets of a picture that has so many rows for each, in the order of the grid."""
        chosen = set(self.ranking[: max(1, MOST_ROWS // max(1, rows_a_set))])
        return [name for name in self.layer_sets if name in chosen]

    def lines_of(self, frame: pd.DataFrame) -> Iterator[tuple[str, int | None, pd.DataFrame]]:
        """Yield name, style and rows of each layer set of a frame whose rows are in order, named ones last, on top."""
        groups = [(str(name), rows) for name, rows in frame.groupby("layer_set", sort=False)]
        for name, rows in sorted(groups, key=lambda group: group[0] in self.styles):
            yield name, self.styles.get(name), rows

    @property
    def about_lines(self) -> str:
        """A sentence about which layer sets have colors; empty if all have."""
        n, of = len(self.styles), len(self.layer_sets)
        return "" if n == of else f"The {n} layer sets that end best have colors, the others are gray."

    @cached_property
    def n_seeds(self) -> int:
        """Number of seeds that have cells."""
        return int(self.cells["seed"].nunique())

    @cached_property
    def lambda_unit(self) -> str:
        """The unit of lambda."""
        scales = self.cells["lambda_scale"].unique()
        return "in units of trace(K)/M" if "trace" in scales else "absolute"


def over_seeds(cells: pd.DataFrame, by: list[str], columns: Sequence[str]) -> pd.DataFrame:
    """Return the mean over seeds of columns, `<column>_low` and `<column>_high` of the seeds, and `n_seeds`."""
    groups = cells.groupby(by, sort=False, dropna=False)
    found = groups[list(columns)].mean()
    low, high = groups[list(columns)].min(), groups[list(columns)].max()
    ordered: dict[str, pd.Series[float]] = {}
    for column in columns:
        ordered |= {column: found[column], f"{column}_low": low[column], f"{column}_high": high[column]}
    return pd.DataFrame({"n_seeds": groups["seed"].nunique(), **ordered}).reset_index()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else "none" if pd.isna(value) else format(value, "g")
