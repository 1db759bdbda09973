"""The kind `dataset`: the examples that a seed draws, tokenized."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.settings import Sampling, TaskSettings
from orchestrator.stages.base.scope import SeedScope
from orchestrator.store.stage import Stage, StageCost, StageKind
from orchestrator.sweep.settings import task_settings

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
    sampling: Sampling
    seed: int


def cost(stage: Stage[DatasetParameters], variant: "Variant") -> StageCost:
    """Return the bytes of the tokens and labels of all examples."""
    sizes = variant.sizes
    return StageCost(written_bytes=int((sizes.n_train + sizes.n_eval) * (variant.survey.mean_tokens * 8 + 24)))


def plan(scope: SeedScope) -> None:
    """Add the stage that draws the examples of a seed."""
    sweep, task = scope.variant.sweep, scope.variant.sweep.spec.task
    parameters = DatasetParameters(
        tokenizer=sweep.sources.model.content_id,
        task=task_settings(task, sweep.sources.data.content_id, None),
        n_outputs=scope.variant.survey.n_outputs,
        classes=task.classes,
        n_train=max(sweep.spec.grid.n_train),
        n_eval=task.n_eval,
        sampling=task.sampling,
        seed=scope.seed if task.sample_seed is None else task.sample_seed,
    )
    scope.add(Stage(DATASET, parameters))


DATASET = StageKind(
    name="dataset",
    parameters=DatasetParameters,
    version=2,
    meaning="draws the examples of a seed and tokenizes them",
    module="orchestrator.stages.dataset.compute",
    plan=plan,
    cost=cost,
)
