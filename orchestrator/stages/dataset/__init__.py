"""The kind `dataset`: the examples that a seed draws, tokenized."""

from typing import TYPE_CHECKING

from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


def cost(stage: Stage, variant: "Variant") -> StageCost:
    """Return the bytes of the tokens and labels of all examples."""
    sizes = variant.sizes
    return StageCost(disk_bytes=int((sizes.n_train + sizes.n_eval) * (variant.survey.mean_tokens * 8 + 24)))


DATASET = StageKind(
    name="dataset",
    version=2,
    meaning="draws the examples of a seed and tokenizes them",
    module="orchestrator.stages.dataset.compute",
    cost=cost,
)
