"""Telling people how far the training of a stage is, while it goes on."""

from collections.abc import Iterator
from contextlib import contextmanager

from finetune.training.run import Watcher
from finetune.training.settings import TrainingSettings
from orchestrator.stages.context.work import Work
from orchestrator.stages.finetune import FinetuneParameters, training_label
from orchestrator.store.stage import Stage
from orchestrator.store.training_progress import ProgressFile


@contextmanager
def watching(stage: Stage[FinetuneParameters], work: Work, settings: TrainingSettings) -> Iterator[Watcher | None]:
    """Return who is told the losses of a training, and keeps them in a file for as long as the context lasts.

    There is none but in the first process of a group.
    """
    if not work.process_group.leads:
        yield None
        return
    n_train = stage.parameters.runs[0].problem.n_train
    path = work.folder.training / f"{stage.stage_id}.json"
    file = ProgressFile(path, training_label(stage), settings.steps, _epochs(settings, n_train))
    try:
        yield file
    finally:
        file.remove()


def _epochs(settings: TrainingSettings, n_train: int) -> float:
    """Return how often training sees every example; a step of gradient descent sees all of them."""
    if settings.optimizer == "gradient_descent":
        return settings.steps
    return settings.steps / -(-n_train // (settings.batch_size * settings.gradient_accumulation_steps))
