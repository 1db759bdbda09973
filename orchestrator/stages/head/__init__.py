"""The kind `head`: a head that is fitted to the hidden states of the training examples."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.stages.parameters import ScorerParameters
from orchestrator.store.stage import Stage, StageCost, StageKind

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
    n, d = sizes.n_train, int(survey.model["hidden_size"])
    features = 2.0 * survey.model["n_parameters"] * survey.mean_tokens * n
    # The singular value decomposition of the features takes about 6 n d^2 (Golub and Van Loan, figure 8.6.1).
    return StageCost(features + 6.0 * max(n, d) * min(n, d) ** 2, 8 * (n + survey.n_outputs) * (d + 1))


HEAD = StageKind(
    name="head",
    parameters=HeadParameters,
    version=3,
    meaning="fits the head to the hidden states of the training examples",
    module="orchestrator.stages.head.compute",
    cost=cost,
    runs_model=True,
)
