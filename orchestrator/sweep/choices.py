"""The variants of a sweep: for each task, rank and learning rate of its grid, a sweep with only these."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from orchestrator.spec import Spec
from orchestrator.sweep.folder import Sweep
from orchestrator.sweep.sources import Sources


@dataclass(frozen=True)
class Choice:
    """Values of a variant on the grid's axes; None where the grid does not have the axis.

    Attributes:
        task: name of the task.
        rank: rank of LoRA.
        learning_rate: of fine-tuning.
    """

    task: str | None = None
    rank: int | None = None
    learning_rate: float | None = None

    def __str__(self) -> str:
        parts = (
            self.task,
            None if self.rank is None else f"rank {self.rank}",
            None if self.learning_rate is None else f"learning rate {self.learning_rate:g}",
        )
        return ", ".join(part for part in parts if part is not None)


def choices(spec: Spec) -> list[Choice]:
    """Return the choices of a spec, tasks outermost; a single empty choice where the grid has none of the axes."""
    grid = spec.grid
    of_grid = product(grid.tasks or [None], grid.ranks or [None], grid.learning_rates or [None])
    return [Choice(task, rank, learning_rate) for task, rank, learning_rate in of_grid]


def variants(sweep: Sweep) -> Iterator[tuple[Choice, Sweep]]:
    """Yield each choice of a sweep with its own sweep, which has one task, one rank and one learning rate.

    The numbers of a variant are those of a sweep whose spec has only its values.
    """
    for choice in choices(sweep.spec):
        yield choice, replace(sweep, spec=_chosen(sweep.spec, choice), sources=_sources(sweep.sources, choice))


def _chosen(spec: Spec, choice: Choice) -> Spec:
    changes: dict[str, Any] = {
        "grid": spec.grid.model_copy(update={"tasks": None, "ranks": None, "learning_rates": None})
    }
    if choice.task is not None and spec.grid.tasks is not None:
        changes["task"] = spec.grid.tasks[choice.task]
    if choice.rank is not None:
        changes["adapter"] = spec.adapter.model_copy(update={"rank": choice.rank})
    if choice.learning_rate is not None and spec.finetune is not None:
        changes["finetune"] = spec.finetune.model_copy(update={"learning_rate": choice.learning_rate})
    return spec.model_copy(update=changes)


def _sources(sources: Sources, choice: Choice) -> Sources:
    return sources if choice.task is None else Sources(sources.model, sources.tasks[choice.task])
