"""The kind `batches`: the largest number of tokens in a batch, for a spec that sets it to `auto`."""

from typing import TYPE_CHECKING

from orchestrator.stages.capture import rows_memory
from orchestrator.stages.parameters import RowsParameters
from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant

SEVERAL = 4
"""Examples of the larger of the two batches that are measured."""


def cost(stage: Stage[RowsParameters], variant: "Variant") -> StageCost:
    """Return the cost of the small batches and of the largest possible one, with the most examples of a batch."""
    flops = variant.row_flops(SEVERAL + stage.parameters.batch_examples)
    return StageCost(flops, memory_bytes=rows_memory(variant))


BATCHES = StageKind(
    name="batches",
    parameters=RowsParameters,
    version=1,
    meaning="finds how many tokens of a batch fit into memory",
    module="orchestrator.stages.batches.compute",
    cost=cost,
    runs_model=True,
)
