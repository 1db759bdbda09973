"""Stages that fill rows of tables, and the identities of the cells."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from orchestrator.identity import canonical_json, digests
from orchestrator.store.stage import Stage
from orchestrator.sweep.layer_sets import LayerSet

if TYPE_CHECKING:
    from orchestrator.stages.compare import CompareParameters
    from orchestrator.stages.solve import SolveParameters


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A stage that fills rows of a table.

    Attributes:
        stage: the stage.
        variant: position of the variant that the rows belong to.
        seed: seed of the grid.
        n_train: training examples.
    """

    stage: Stage[Any]
    variant: int
    seed: int
    n_train: int

    @property
    def filling(self) -> tuple[Stage[Any], ...]:
        """All stages that fill its rows."""
        return (self.stage,)


@dataclass(frozen=True)
class Comparison:
    """A stage that fills the columns about training, of some lambdas of a layer set.

    Attributes:
        stage: the stage `compare`.
        layer_set: position of the layer set among those of its solve stage.
        lambdas: position of each of its lambdas in the grid; None for one that the grid no longer has.
    """

    stage: "Stage[CompareParameters]"
    layer_set: int
    lambdas: tuple[int | None, ...]

    @property
    def in_grid(self) -> dict[int, int]:
        """Position in the grid of each lambda that the grid has, by its number among those of the stage."""
        return in_grid(self.lambdas)


@dataclass(frozen=True, kw_only=True)
class Solve(Filled):
    """A solve stage and the cells that it fills: its layer sets times all lambdas.

    Variants that differ in the learning rate alone have solve stages in common.

    Attributes:
        layer_sets: its layer sets, in the order of the artifact's arrays.
        problem_id: identity of everything but layer set and lambda.
        learning_rate: that of the variant, where the grid has several.
        comparisons: the stages that fill the columns about training of the same cells; none if nothing is trained.
    """

    stage: "Stage[SolveParameters]"
    layer_sets: tuple[LayerSet, ...]
    problem_id: str
    learning_rate: float | None = None
    comparisons: tuple[Comparison, ...] = ()

    @property
    def filling(self) -> tuple[Stage[Any], ...]:
        """All stages that fill its cells."""
        return (self.stage, *(comparison.stage for comparison in self.comparisons))


def in_grid(lambdas: Sequence[int | None]) -> dict[int, int]:
    """Return the positions in the grid that are not None, by number."""
    return {number: position for number, position in enumerate(lambdas) if position is not None}


def cell_ids(solve: Solve, layer_set: LayerSet, lambdas: Sequence[float], scale: str) -> list[str]:
    """Return the identities of the cells of one layer set: hashes of the canonical JSON that defines each cell.

    The JSON is {"groups", "lambda", "problem", "scale"}, with "learning_rate" where the grid has several; its constant
    parts are written once for all lambdas.
    """
    before = f'{{"groups":{canonical_json(layer_set.groups)},"lambda":'
    rate = "" if solve.learning_rate is None else f'"learning_rate":{json.dumps(solve.learning_rate)},'
    after = f',{rate}"problem":"{solve.problem_id}","scale":"{scale}"}}'
    return digests(before, [f"{strength}{after}" for strength in _texts(tuple(lambdas))])


@lru_cache(maxsize=16)
def _texts(numbers: tuple[float, ...]) -> list[str]:
    return [json.dumps(number) for number in numbers]
