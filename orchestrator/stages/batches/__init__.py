"""The kind `batches`: the largest number of tokens in a batch, for a spec that sets it to `auto`."""

from typing import TYPE_CHECKING

from orchestrator.stages.base.parameters import RowsParameters
from orchestrator.stages.base.scope import SeedScope
from orchestrator.stages.dataset import DATASET
from orchestrator.store.stage import Stage, StageCost, StageKind
from orchestrator.sweep.passes import rows

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant

SEVERAL = 4
"""Examples of the larger of the two batches that are measured."""


def cost(stage: Stage[RowsParameters], variant: "Variant") -> StageCost:
    """Return the cost of the small batches and of the largest possible one, with the most examples of a batch."""
    passed = rows(variant, SEVERAL + stage.parameters.batch_size, stage.parameters.groups)
    return passed + StageCost(memory_bytes=variant.sizes.batch_bytes)


def plan(scope: SeedScope) -> None:
    """Add for each drawn training set the stage that finds the most tokens of a batch, unless the spec sets them."""
    # Memory is not a parameter: a batch size that was found once stays, even if the memory changes later.
    if scope.scorer.batch_tokens == "auto":
        for n_train in scope.example_sets:
            scope.add(Stage(BATCHES, scope.rows, scope.inputs(n_train, DATASET)), n_train)


BATCHES = StageKind(
    name="batches",
    parameters=RowsParameters,
    version=1,
    meaning="finds how many tokens of a batch fit into memory",
    module="orchestrator.stages.batches.compute",
    plan=plan,
    cost=cost,
    runs_model=True,
)
