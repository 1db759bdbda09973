"""The kind `head`: a head that is fitted to the hidden states of the training examples."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.stages.base.parameters import ScorerParameters
from orchestrator.stages.base.scope import SeedScope
from orchestrator.stages.batches import BATCHES
from orchestrator.stages.dataset import DATASET
from orchestrator.store.stage import Inputs, Stage, StageCost, StageKind
from orchestrator.sweep.passes import forward
from orchestrator.sweep.training_estimates import FITTED_HEADS

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class HeadParameters:
    """Parameters of a stage `head`.

    Attributes:
        scorer: the model, with the head that is fitted.
        outputs: outputs that a ridge head's targets are for.
    """

    scorer: ScorerParameters
    outputs: Literal["full", "margin"]


def cost(stage: Stage[HeadParameters], variant: "Variant") -> StageCost:
    """Return the cost of the hidden states of all training examples, and of the fit."""
    sizes, survey = variant.sizes, variant.survey
    n, d = sizes.n_train, survey.model.hidden_size
    # The singular value decomposition of the features takes about 6 n d^2 (Golub and Van Loan, figure 8.6.1).
    fit = 6.0 * max(n, d) * min(n, d) ** 2
    written = 8 * (n + survey.n_outputs) * (d + 1)
    return forward(variant, n) + StageCost(memory_flops=fit, written_bytes=written)


def plan(scope: SeedScope) -> None:
    """Add the stage that fits the head, where one is fitted."""
    if scope.scorer.head.kind not in FITTED_HEADS:
        return
    # Only `kernel.outputs: margin` changes the targets of a ridge probe, and nothing those of a logistic one.
    margin = scope.scorer.head.kind == "ridge" and scope.rows.outputs == "margin"
    inputs = scope.inputs(scope.drawn_sets[-1], DATASET, BATCHES)  # a spec that fits a head has one training-set size
    scope.add(Stage(HEAD, HeadParameters(scope.scorer, "margin" if margin else "full"), inputs))


def model_inputs(scope: SeedScope, n_train: int) -> Inputs:
    """Return the inputs of every stage that runs the model on examples of a training-set size, or evaluation examples.

    They are the examples, the size of batches, and a fitted head.
    """
    return scope.inputs(n_train, DATASET, BATCHES, HEAD)


HEAD = StageKind(
    name="head",
    parameters=HeadParameters,
    version=3,
    meaning="fits the head to the hidden states of the training examples",
    module="orchestrator.stages.head.compute",
    plan=plan,
    cost=cost,
    runs_model=True,
)
