"""The section `grid` of a spec: regularization strengths, layer sets, seeds and training-set sizes."""

import math
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orchestrator.spec.listed import MOST_STRENGTHS, Logspace
from orchestrator.spec.quantities import Count, First, Layer, Number, Rank, Real, Seed
from orchestrator.spec.section import Section
from orchestrator.spec.sections import Name, TaskSection
from orchestrator.spec.shorthand import CHOICES, ONE_OR_MORE, SETS, STRENGTHS, seeds_listed


def _task_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError("the name of a task has letters, digits, - _ and . only, begins with a letter or a digit, and "
                         "has 100 characters at most")  # fmt: skip
    return name


TaskName = Annotated[str, AfterValidator(_task_name)]

MOST_VARIANTS = 1_000
"""Tasks times ranks times learning rates; before planning, model and data are looked at for each task and rank."""

MOST_PROBLEMS = 100_000
"""Variants times seeds times training-set sizes, each of which has stages of its own."""


LambdaScale = Literal["absolute", "trace"]


class LambdaSection(Section):
    """The regularization strengths lambda > 0 of (1/2)|J d - r|^2 + (lambda/2)|d|^2."""

    values: Annotated[tuple[Real, ...], First, ONE_OR_MORE] | None = Field(
        None, description="The strengths themselves.", examples=[[1e-4, 1e-2, 1.0]], max_length=MOST_STRENGTHS
    )
    logspace: Logspace | None = Field(
        None,
        description="The strengths as a logarithmic range.",
        examples=[{"start": 1e-6, "stop": 1.0, "count": 13}],
    )
    scale: LambdaScale = Field(
        "absolute",
        description="absolute takes them as they are; trace in units of trace(K)/M of each layer set's kernel.",
        examples=["trace"],
    )

    @model_validator(mode="after")
    def _one_of(self) -> "LambdaSection":
        if (self.values is None) == (self.logspace is None):
            raise ValueError("give either `values` or `logspace`")
        if not self.numbers():
            raise ValueError("the grid is empty: `values` needs at least one lambda")
        return self

    def numbers(self) -> tuple[float, ...]:
        """Return the strengths as given, ascending and without repeats."""
        given = self.values if self.values is not None else self.logspace.numbers() if self.logspace else ()
        return tuple(sorted(set(given)))


class SubsetsUpTo(Section):
    """All sets of layers up to a size."""

    subsets: Annotated[int, Number, Field(gt=0, le=1_000)] = Field(
        description="Largest number of layers in a set.", examples=[3]
    )


class ExplicitLayers(Section):
    """Sets of layers, listed."""

    layers: Annotated[
        tuple[Annotated[tuple[Layer, ...], First, Field(min_length=1)], ...],
        First,
        SETS,
    ] = Field(
        description="Sets of layer numbers, counted from 0; [0, 5] is the one set of both.",
        examples=[[[0, 1], [5]]],
        min_length=1,
    )


class ExplicitGroups(Section):
    """Sets of groups, listed."""

    groups: Annotated[
        tuple[Annotated[tuple[Name, ...], First, Field(min_length=1)], ...],
        First,
        SETS,
    ] = Field(
        description="Sets of group names, as `ntksweep plan` lists them; [3.query, head] is the one set of both.",
        examples=[[["3.query", "3.value"], ["head"]]],
        min_length=1,
    )


Family = Literal["each_layer", "prefixes", "suffixes", "pairs", "all_layers", "each_target"]
LayerSetChoice = Family | SubsetsUpTo | ExplicitLayers | ExplicitGroups


class GridSection(Section):
    """The axes of the sweep; every combination is a cell."""

    lambdas: Annotated[LambdaSection, STRENGTHS] = Field(
        description="Regularization strengths; a list gives the `values`, on the absolute scale.",
        examples=[{"logspace": {"start": 1e-6, "stop": 1.0, "count": 13}, "scale": "trace"}],
    )
    layer_sets: Annotated[tuple[LayerSetChoice, ...], First, CHOICES] = Field(
        description="Which layers are adapted together. Families: each_layer, prefixes (0; 0-1; 0-2; ...), suffixes "
        "(last; last two; ...), pairs, all_layers, each_target (one target module in all layers), {subsets: k}; or "
        "listed: {layers: [[0, 1], [5]]}, {groups: [[3.query]]}. Sets that coincide count once.",
        examples=[["each_layer", "prefixes", "suffixes"]],
        min_length=1,
    )
    seeds: Annotated[tuple[Seed, ...], First, BeforeValidator(seeds_listed)] = Field(
        (0,), description="Seeds of sample, adapter and head, where those do not fix their own.",
        examples=[[0, 1, 2]], min_length=1,
    )  # fmt: skip
    n_train: Annotated[tuple[Count, ...], First, ONE_OR_MORE] = Field(
        description="Training-set sizes; a smaller set is the beginning of a larger one.",
        examples=[[400]],
        min_length=1,
    )
    tasks: dict[TaskName, TaskSection] | None = Field(
        None,
        description="Several tasks, by name. Each gives the keys of the section `task` that are its own, the others "
        "are those of `task`; null takes the one task that `task` describes.",
        examples=[{"movies": {"data": "data/movies.parquet", "kind": "classification", "n_eval": 300}}],
        min_length=1,
    )
    ranks: Annotated[tuple[Rank, ...], First, ONE_OR_MORE] | None = Field(
        None,
        description="Several ranks of LoRA; null takes `adapter.rank`. alpha stays, so that updates are "
        "scaled by alpha / rank.",
        examples=[[1, 2, 4, 8, 16]],
        min_length=1,
    )
    learning_rates: Annotated[tuple[Real, ...], First, ONE_OR_MORE] | None = Field(
        None,
        description="Several learning rates; null takes `finetune.learning_rate`.",
        examples=[[3e-4, 1e-3, 3e-3]],
        min_length=1,
    )

    @model_validator(mode="after")
    def _small_enough(self) -> "GridSection":
        variants = {"tasks": self.tasks, "ranks": self.ranks, "learning_rates": self.learning_rates}
        _refuse_more({f"grid.{axis}": len(values) for axis, values in variants.items() if values}, MOST_VARIANTS)
        problems = variants | {"seeds": set(self.seeds), "n_train": set(self.n_train)}
        _refuse_more({f"grid.{axis}": len(values) for axis, values in problems.items() if values}, MOST_PROBLEMS)
        return self


def _refuse_more(lengths: dict[str, int], most: int) -> None:
    if math.prod(lengths.values()) > most:
        product = " x ".join(f"{length:,} {axis}" for axis, length in lengths.items())
        raise ValueError(
            f"{product} make more than {most:,} combinations; give fewer, or divide them among several specs"
        )
