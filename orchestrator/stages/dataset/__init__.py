"""The kind `dataset`: the examples that a seed draws, tokenized."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from finetune.settings import TaskSettings
from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class DatasetParameters:
    """Parameters of a stage `dataset`.

    Attributes:
        tokenizer: identity of the model's content, which the tokenizer comes with.
        task: the task, with the identity of the data's content in place of where they are.
        n_outputs: outputs of the model.
        classes: classes that labels count from 0; None counts those of the data.
        n_train: training examples.
        n_eval: evaluation examples.
        sampling: how examples are drawn.
        seed: seed of the draw.
    """

    tokenizer: str
    task: TaskSettings
    n_outputs: int
    classes: int | None
    n_train: int
    n_eval: int
    sampling: Literal["random", "balanced", "first"]
    seed: int


def cost(stage: Stage[DatasetParameters], variant: "Variant") -> StageCost:
    """Return the bytes of the tokens and labels of all examples."""
    sizes = variant.sizes
    return StageCost(disk_bytes=int((sizes.n_train + sizes.n_eval) * (variant.survey.mean_tokens * 8 + 24)))


DATASET = StageKind(
    name="dataset",
    parameters=DatasetParameters,
    version=2,
    meaning="draws the examples of a seed and tokenizes them",
    module="orchestrator.stages.dataset.compute",
    cost=cost,
)
