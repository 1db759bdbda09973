"""Stacks: cells of a layer set that share a model in training, of several lambdas, seeds or learning rates.

Cells that were trained in a stack before the grid changed stay in it. What the results folder was asked for before is
stacked again for that, as it was then; a stack of which a stage was begun stays, and takes its cells. The others make
stacks as the grid says now.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.stages.base.scope import Planning
from orchestrator.stages.finetune import FinetuneParameters, finetune_stage
from orchestrator.stages.finetune.costs import training_memory
from orchestrator.stages.finetune.planning import TrainedCells, TrainedLayerSet
from orchestrator.store.stage import Stage
from orchestrator.sweep.stacked_before import StacksAsked


@dataclass(frozen=True)
class StackedCells:
    """Cells of a layer set, the stage that trains the model with them, and the number of their run in it."""

    cells: TrainedCells
    stage: Stage[FinetuneParameters]
    run: int


def stacked(planning: Planning, layer_sets: Sequence[TrainedLayerSet]) -> list[list[StackedCells]]:
    """Return the cells of each of some layer sets, by stack, those first that are in one since earlier runs.

    A stack that was begun comes with all its lambdas, if the grid has one of them; seeds or learning rates that the
    grid lacks cannot be trained, so that the others of such a stack are stacked anew.

    Args:
        planning: the sweep.
        layer_sets: all that are trained.
    """
    spec, before = planning.sweep.spec, planning.sweep.stacked_before
    now = StacksAsked.by(spec)
    if now is None:
        return [[] for _ in layer_sets]
    stacks = _Stacks(layer_sets, now.lambdas)
    combined = spec.finetune is not None and spec.finetune.combinations is not None
    asked, begun = [each for each in before.asked if each.same_size(now)], set(before.begun)
    grew = bool(begun)
    while grew:  # what one left may have been stacked when another was asked for once more
        grew = False
        for each in asked:
            found = list(stacks.formed(each))
            kept = [stack for stack in found if stack.is_begun(begun)]
            for stack in _with_pairs(found, kept) if combined else kept:
                stacks.take(stack)
                grew = True
    for stack in list(stacks.formed(now)):
        stacks.take(stack)
    return stacks.found


@dataclass(frozen=True)
class _Stack:
    """Cells that share a model, each with the position of its layer set."""

    members: tuple[tuple[int, TrainedCells], ...]
    stage: Stage[FinetuneParameters]

    def is_begun(self, begun: set[str]) -> bool:
        """Tell whether the model, or the linearization of some of its cells, is among stages that were begun."""
        return self.stage.stage_id in begun or any(
            finetune_stage([cells.linearized]).stage_id in begun for _, cells in self.members
        )

    def pairs(self) -> set[tuple[Any, ...]]:
        """Return what cells have in common with those of other tasks whose weights are combined with theirs."""
        return {(cells.of.rank, cells.of.learning_rate, cells.of.seed, *_problem(cells)) for _, cells in self.members}


class _Stacks:
    """The stacks of layer sets.

    Args:
        layer_sets: all that are trained.
        lambdas: those of the grid.
    """

    def __init__(self, layer_sets: Sequence[TrainedLayerSet], lambdas: Sequence[float]) -> None:
        self._layer_sets = layer_sets
        self._lambdas = set(lambdas)
        self._taken: list[set[float]] = [set() for _ in layer_sets]
        self.found: list[list[StackedCells]] = [[] for _ in layer_sets]

    def formed(self, asked: StacksAsked) -> Iterator[_Stack]:
        """Yield the stacks of what was asked for, of cells that are in none yet."""
        alike: dict[tuple[Any, ...], list[tuple[int, TrainedCells]]] = {}
        for number, each in enumerate(self._layer_sets):
            if asked.trains(each.learning_rate, each.seed):
                left = [strength for strength in asked.lambdas if strength not in self._taken[number]]
                for first in range(0, len(left), asked.stacked_cells):
                    cells = each.cells(left[first : first + asked.stacked_cells])
                    alike.setdefault(_shared_key(asked, cells), []).append((number, cells))
        for members in alike.values():
            members.sort(key=lambda member: asked.place(member[1].of.learning_rate, member[1].of.seed))
            for together in _divided(members, asked):
                yield _Stack(tuple(together), finetune_stage([cells.trained for _, cells in together]))

    def take(self, stack: _Stack) -> None:
        """Keep a stack; its cells are in no other. It is in none of the tables if the grid has none of its lambdas."""
        for run, (number, cells) in enumerate(stack.members):
            self._taken[number].update(cells.lambdas)
            if not self._lambdas.isdisjoint(cells.lambdas):
                self.found[number].append(StackedCells(cells, stack.stage, run))


def _with_pairs(stacks: Sequence[_Stack], kept: Sequence[_Stack]) -> Sequence[_Stack]:
    """Return some stacks, and those with cells of other tasks whose weights are combined with theirs."""
    while True:
        pairs = {pair for stack in kept for pair in stack.pairs()}
        wider = [stack for stack in stacks if not pairs.isdisjoint(stack.pairs())]
        if len(wider) == len(kept):
            return wider
        kept = wider


def _shared_key(asked: StacksAsked, cells: TrainedCells) -> tuple[Any, ...]:
    """Return what runs must have in common to share a model."""
    of = cells.of
    return (
        of.scope.variant.choice.task,
        of.rank,
        None if asked.learning_rates is not None else of.learning_rate,
        None if asked.seeds is not None else of.seed,
        *_problem(cells),
    )


def _problem(cells: TrainedCells) -> tuple[Any, ...]:
    return cells.of.solve.n_train, cells.cells.groups, cells.lambdas


def _divided(
    members: Sequence[tuple[int, TrainedCells]], asked: StacksAsked
) -> Iterator[list[tuple[int, TrainedCells]]]:
    """Divide cells into those that share a model: at most so many, within the memory budget."""
    part: list[tuple[int, TrainedCells]] = []
    count = taken = 0
    for member in members:
        _, cells = member
        variant = cells.of.scope.variant
        own, memory = len(cells.lambdas), training_memory(variant.sizes, variant.survey, cells.trained)
        full = count + own > asked.stacked_cells
        if part and (full or (asked.memory_budget is not None and taken + memory > asked.memory_budget)):
            yield part
            part, count, taken = [], 0, 0
        part.append(member)
        count, taken = count + own, taken + memory
    yield part
