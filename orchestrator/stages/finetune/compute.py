"""The stage `finetune`: trains the cells of its runs in one model, the model itself or its linearization."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from finetune.training.loop import train_cells
from finetune.training.origins import starting_from
from finetune.training.run import Observer, Watcher
from finetune.training.settings import Cell, TrainingSettings
from finetune.training.trainable import Displacement
from orchestrator.stages.base.parameters import ProblemParameters
from orchestrator.stages.context.problem import load_problem
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.finetune import FinetuneParameters, Run, runs_of, training_label
from orchestrator.stages.finetune.trained_cells import arrays_of, facts_of
from orchestrator.stages.finetune.training_inputs import TrainingInputs
from orchestrator.store.batched import Array
from orchestrator.store.stage import Stage
from orchestrator.store.training_progress import ProgressFile


def compute(stage: Stage[FinetuneParameters], work: Work) -> Product:
    """Train the cells of all runs.

    The artifact holds the arrays of `arrays_of` as `<run>.<array>`; the facts say how each cell of each run ended.
    """
    runs = runs_of(stage)
    inputs = _inputs(runs, work)
    starts = list(dict.fromkeys(inputs))
    lambdas = {start: start.lambdas() for start in starts}
    rates = [run.parameters.cells.training.learning_rate for run in runs]
    cells = [Cell(strength, rate) for rate, own in zip(rates, inputs, strict=True) for strength in lambdas[own]]
    ends = np.cumsum([0, *(len(lambdas[own]) for own in inputs)])
    slices = [slice(int(first), int(last)) for first, last in pairwise(ends)]
    n_examples = runs[0].parameters.kernel_examples
    settings = starts[0].settings
    if runs[0].parameters.model == "linearized":
        model = starts[0].linearization(len(cells))
    else:
        origins = [starts.index(own) for own in inputs for _ in lambdas[own]]
        model = starts[0].model_of([start.origin() for start in starts], origins)
    with _watching(stage, work, settings) as watcher:
        trained = train_cells(
            model,
            [start.targets() for start in starts],
            settings,
            cells,
            seeds=[start.seed for start in starts],
            checkpoint=work.checkpoint(stage),
            observer=_observer(inputs, slices, n_examples) if n_examples else None,
            at_once=work.halved(settings.batch_size),
            watcher=watcher,
        )
    arrays: dict[str, Array] = {}
    facts = []
    for number, (own, chosen, rate) in enumerate(zip(inputs, slices, rates, strict=True)):
        part = trained.part(chosen)
        of_run = arrays_of(own, part, lambdas[own], n_examples)
        arrays |= {f"{number}.{name}": values for name, values in of_run.items()}
        facts.append(facts_of(part, rate))
    return Product({"runs": facts}, work.write_arrays(stage, arrays))


def _inputs(runs: Sequence[Run], work: Work) -> list[TrainingInputs]:
    """Return the inputs of each run, in one model; runs that differ in the learning rate alone have the same."""
    found: dict[tuple[ProblemParameters, int], TrainingInputs] = {}
    keys = [(run.parameters.problem, run.parameters.cells.seed) for run in runs]
    for key, run in zip(keys, runs, strict=True):
        if key in found:
            continue
        inputs = TrainingInputs(run, work, load_problem(run, work))
        if found:
            inputs.share(found[keys[0]])
        found[key] = inputs
    if len(found) > 1:
        work.forget_scorer()  # the last seed's, which would stand in memory beside the one that is trained
    return [found[key] for key in keys]


def _observer(inputs: Sequence[TrainingInputs], slices: Sequence[slice], n_examples: int) -> Observer:
    """Return an observer that follows the kernel of each run at that run's origin."""
    changes = {own: own.kernel_change(n_examples) for own in dict.fromkeys(inputs)}

    def observe(displacements: Mapping[int, Displacement]) -> Mapping[str, NDArray[np.float64]]:
        found: list[Mapping[str, NDArray[np.float64]]] = []
        for own, chosen in zip(inputs, slices, strict=True):
            of_run = {cell: moved for cell, moved in displacements.items() if chosen.start <= cell < chosen.stop}
            with starting_from(own.weights):
                found.append(changes[own](of_run))
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

    return observe


@contextmanager
def _watching(stage: Stage[FinetuneParameters], work: Work, settings: TrainingSettings) -> Iterator[Watcher | None]:
    """Yield the receiver of a training's losses, which keeps them in a file for as long as the context lasts.

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
