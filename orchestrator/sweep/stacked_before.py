"""Stacks of cells whose training a results folder began before its sweep grew: what was trained in one stays in it."""

from collections.abc import Callable, Collection, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from orchestrator.spec import Spec


class StacksAsked(BaseModel):
    """The values of a spec from which its stacks follow. Axes that no stack spans are left out.

    Attributes:
        lambdas: lambdas of the grid, ascending.
        learning_rates: learning rates of the grid, if stacks span several.
        seeds: seeds of the grid, if stacks span several.
        stacked_cells: most cells of a stack.
        stacked_across: axes other than lambda that stacks span.
        memory_budget: bytes that the runs of a stack share, if it spans other axes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lambdas: tuple[float, ...]
    learning_rates: tuple[float, ...] | None
    seeds: tuple[int, ...] | None
    stacked_cells: int
    stacked_across: tuple[Literal["learning_rates", "seeds"], ...]
    memory_budget: int | None

    @classmethod
    def by(cls, spec: Spec) -> "StacksAsked | None":
        """Return what a spec asks for; None if it trains nothing."""
        section, grid = spec.finetune, spec.grid
        if section is None:
            return None
        across = tuple(sorted(section.stacked_across or ()))
        return cls(
            lambdas=grid.lambdas.numbers(),
            learning_rates=(grid.learning_rates or (section.learning_rate,)) if "learning_rates" in across else None,
            seeds=tuple(dict.fromkeys(grid.seeds)) if "seeds" in across else None,
            stacked_cells=section.stacked_cells,
            stacked_across=across,
            memory_budget=spec.compute.memory_budget if across else None,
        )

    def trains(self, learning_rate: float, seed: int) -> bool:
        """Tell whether cells of a learning rate and a seed were asked for, as far as stacks depend on these."""
        return (self.learning_rates is None or learning_rate in self.learning_rates) and (
            self.seeds is None or seed in self.seeds
        )

    def place(self, learning_rate: float, seed: int) -> tuple[int, int]:
        """Return what the cells of a stack are sorted by: positions of their learning rate and seed."""
        rates, seeds = self.learning_rates, self.seeds
        return rates.index(learning_rate) if rates else 0, seeds.index(seed) if seeds else 0

    def same_size(self, other: "StacksAsked") -> bool:
        """Tell whether stacks hold as many cells, of the same axes."""
        return (self.stacked_cells, self.stacked_across) == (other.stacked_cells, other.stacked_across)


class StackedBefore(BaseModel):
    """What a folder was asked to train before, and which of it was begun when it was last asked for something else.

    Attributes:
        asked: what was asked for, each once.
        begun: identities of the stages `finetune` that were finished then or had left a checkpoint. Others are in no
            stack yet, so that all processes stack them as the present grid says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    asked: tuple[StacksAsked, ...] = ()
    begun: tuple[str, ...] = ()

    def grown(self, stored: Spec, given: Spec, begun: Callable[[], Collection[str]]) -> "StackedBefore":
        """Return what holds for a spec in a folder that was run with another one, or with the same.

        Args:
            stored: the spec that the folder was last run with.
            given: the one that it is asked for now.
            begun: returns the stages `finetune` that are finished in it or have left a checkpoint.
        """
        before = StacksAsked.by(stored)
        if before is None or before == StacksAsked.by(given):
            return self
        found = begun()
        asked: Sequence[StacksAsked] = self.asked if before in self.asked else (*self.asked, before)
        return StackedBefore(asked=tuple(asked), begun=tuple(sorted(found))) if found else StackedBefore()
