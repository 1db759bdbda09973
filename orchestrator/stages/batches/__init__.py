"""The kind `batches`: how many tokens a batch may have, for a spec that lets memory say it."""

from typing import TYPE_CHECKING

from orchestrator.stages.capture import rows_memory
from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant

SEVERAL = 4
"""Examples of the larger of the two batches that are measured."""


def cost(stage: Stage, variant: "Variant") -> StageCost:
    """Return what small batches take, and the largest that there can be: as many examples as a batch may have."""
    flops = variant.row_flops(SEVERAL + int(stage.parameters["batch_examples"]))
    return StageCost(flops, memory_bytes=rows_memory(variant))


BATCHES = StageKind(
    name="batches",
    version=1,
    meaning="finds how many tokens of a batch fit into memory",
    module="orchestrator.stages.batches.compute",
    cost=cost,
    runs_model=True,
)
