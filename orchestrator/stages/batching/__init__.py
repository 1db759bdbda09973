"""The kind `batching`: a trial that the examples of a batch do not change each other's numbers."""

from typing import TYPE_CHECKING

from orchestrator.stages.parameters import RowsParameters
from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant

CROWD = 8
"""Most examples of the batches in which the trial checks that examples do not change each other's numbers."""


def cost(stage: Stage[RowsParameters], variant: "Variant") -> StageCost:
    """Return the cost of forward and backward passes for one output: a few for two texts, and one for a batch."""
    p, sizes, survey = stage.parameters, variant.sizes, variant.survey
    together = 1 if p.scorer.batching == "alone" else min(CROWD, p.batch_examples)
    return StageCost(
        flops=4.0 * int(survey.model["n_parameters"]) * survey.mean_tokens * (8 + together),
        # One row of each text of a batch, and those of three texts that are compared.
        memory_bytes=(together + 3) * sizes.n_parameters * sizes.row_bytes,
    )


BATCHING = StageKind(
    name="batching",
    parameters=RowsParameters,
    version=2,
    meaning="tries that the examples of a batch do not change each other's numbers",
    module="orchestrator.stages.batching.compute",
    cost=cost,
    runs_model=True,
)
