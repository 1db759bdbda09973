"""Runs of the training of cells that share a model: those of several lambdas, seeds or learning rates."""

from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.spec.finetune_section import FinetuneSection
from orchestrator.stages.finetune import FinetuneParameters, finetune_stage
from orchestrator.stages.finetune.costs import training_memory
from orchestrator.stages.finetune.planning import TrainedCells
from orchestrator.store.stage import Stage


def shared_models(
    section: FinetuneSection, cells: Sequence[TrainedCells], budget: int
) -> list[tuple[Stage[FinetuneParameters], int]]:
    """Return, for each of some cells, the stage that trains the model with them, and the number of their run in it.

    Args:
        section: how cells are trained.
        cells: all cells that are trained.
        budget: bytes of a worker, which runs of several seeds or learning rates share.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for position, each in enumerate(cells):
        alike.setdefault(_shared_key(section, each), []).append(position)
    found: dict[int, tuple[Stage[FinetuneParameters], int]] = {}
    for positions in alike.values():
        for together in _divided(cells, positions, section.stacked_cells, budget):
            stage = finetune_stage([cells[position].trained for position in together])
            found |= {position: (stage, number) for number, position in enumerate(together)}
    return [found[position] for position in range(len(cells))]


def _shared_key(section: FinetuneSection, cells: TrainedCells) -> tuple[Any, ...]:
    """Return what runs must have in common to share a model."""
    choice, across = cells.scope.variant.choice, section.stacked_across or ()
    return (
        choice.task,
        choice.rank,
        None if "learning_rates" in across else choice.learning_rate,
        None if "seeds" in across else cells.scope.seed,
        cells.solve.n_train,
        cells.cells.groups,
        cells.first,
    )


def _divided(cells: Sequence[TrainedCells], positions: Sequence[int], most: int, budget: int) -> Iterator[list[int]]:
    """Divide the positions of cells into those that share a model: at most so many cells, within a budget."""
    part: list[int] = []
    count = taken = 0
    for position in positions:
        run, variant = cells[position].trained, cells[position].scope.variant
        own, memory = len(run.parameters.cells.lambdas), training_memory(variant.sizes, variant.survey, run)
        if part and (count + own > most or taken + memory > budget):
            yield part
            part, count, taken = [], 0, 0
        part.append(position)
        count, taken = count + own, taken + memory
    yield part
