"""The kind `head_refits`: a logistic head fitted again without each training example."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.stages.base.scope import SeedScope
from orchestrator.stages.dataset import DATASET
from orchestrator.stages.head import HEAD
from orchestrator.store.stage import Stage, StageCost, StageKind
from orchestrator.sweep.training_estimates import missing_estimates

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class HeadRefitsParameters:
    """Parameters of a stage `head_refits`: the L2 penalty of the head's fit; its inputs fix the rest."""

    l2_penalty: float


def cost(stage: Stage[HeadRefitsParameters], variant: "Variant") -> StageCost:
    """Return the cost of products with the Hessians of all refits: 2 n^2 q C additions and multiplications each.

    About 40 of them are needed.
    """
    n, C = variant.sizes.n_train, variant.survey.n_outputs
    q = min(n, variant.survey.model.hidden_size) + 1
    return StageCost(memory_flops=40 * 4.0 * n * n * q * C, written_bytes=8 * n * q * (C + 1))


def plan(scope: SeedScope) -> None:
    """Add the stage that fits a logistic head again without each example, where leave-one-out needs it."""
    head, kernel = scope.scorer.head, scope.variant.sweep.spec.kernel
    if head.kind == "logistic" and "leave_one_out_loss" not in missing_estimates(head.kind, kernel):
        scope.add(
            Stage(HEAD_REFITS, HeadRefitsParameters(head.l2_penalty), scope.inputs(scope.drawn_sets[-1], DATASET, HEAD))
        )


HEAD_REFITS = StageKind(
    name="head_refits",
    parameters=HeadRefitsParameters,
    version=1,
    meaning="fits a logistic head again without each training example",
    module="orchestrator.stages.head_refits.compute",
    plan=plan,
    cost=cost,
)
