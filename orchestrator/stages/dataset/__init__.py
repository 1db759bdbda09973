"""The kind `dataset`: the examples that a seed draws, tokenized."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finetune.settings import Labels, Sampling, TaskSettings
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
        classes: classes that labels count from 0; None counts those of `task.labels`, or of the data.
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


def _in_order(labels: Labels) -> Labels:
    """Return labels in the order of their classes, so that a map has one identity however it is written."""
    return tuple(sorted(labels, key=lambda each: (each[1] is None, each[1], each[0])))


def cost(stage: Stage[DatasetParameters], variant: "Variant") -> StageCost:
    """Return the bytes of the tokens and labels of all examples."""
    examples = stage.parameters.n_train + stage.parameters.n_eval
    return StageCost(written_bytes=int(examples * (variant.survey.mean_tokens * 8 + 24)))


def plan(scope: SeedScope) -> None:
    """Add a stage for each training set of a seed that is drawn: the examples of the one before, and further ones."""
    sweep, task, survey = scope.variant.sweep, scope.variant.sweep.spec.task, scope.variant.survey
    named = len({of for _, of in survey.labels if of is not None})
    for n_train in scope.example_sets:
        parameters = DatasetParameters(
            tokenizer=sweep.sources.model.content_id,
            task=replace(task_settings(task, sweep.sources.data.content_id, None), labels=_in_order(survey.labels)),
            n_outputs=survey.n_outputs,
            classes=None if task.classes == named else task.classes,
            n_train=n_train,
            n_eval=task.n_eval,
            sampling=task.sampling,
            seed=scope.seed if task.sample_seed is None else task.sample_seed,
        )
        scope.add(Stage(DATASET, parameters), n_train)


DATASET = StageKind(
    name="dataset",
    parameters=DatasetParameters,
    version=2,
    meaning="draws the examples of a seed and tokenizes them",
    module="orchestrator.stages.dataset.compute",
    plan=plan,
    cost=cost,
)
