"""Results of a training run, and the state that it saves so that a killed run goes on with the same numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.training.trainable import Displacement

Arrays = dict[str, NDArray[np.generic]]

SEEN = ("train_outputs", "eval_outputs", "distances", "pulled", "pulled_tensors", "objectives", "rises")
"""Fields of a trajectory that hold a value for every cell at every evaluation."""

Observer = Callable[[Mapping[int, Displacement]], Mapping[str, NDArray[np.float64]]]
"""Observes the displacements of some cells, by their numbers, and returns by name a number for each, in their order.

It is called at every evaluation, with the cells that are still trained, and has the same names each time.
"""


class Watcher(Protocol):
    """Receiver of a run's losses while it goes on; it must take no time that training would miss."""

    def stepped(self, step: int, losses: Mapping[int, float]) -> None:
        """Receive the loss of each trained cell at the examples of an update, before it.

        Args:
            step: updates made, this one included.
            losses: by the numbers of the cells, mean over the examples; not finite where the cell diverged.
        """

    def evaluated(self, step: int, train_losses: Mapping[int, float], eval_losses: Mapping[int, float]) -> None:
        """Receive the mean losses of each trained cell over all examples of both splits, after `step` updates."""


class CellStatus(StrEnum):
    """The end of a cell's training."""

    FINISHED = "finished"
    STOPPED_EARLY = "stopped early"
    DIVERGED = "diverged"


@dataclass
class Trajectory:
    """Values of S cells recorded at K steps; nan for cells that had ended before.

    Attributes:
        steps: (K,) updates made before each evaluation.
        train_outputs: K arrays (S, n, R).
        eval_outputs: K arrays (S, m, R).
        distances: K arrays (S,), |theta - theta_0|.
        pulled: K arrays (S,), `CellState.pulled` so far.
        pulled_tensors: K arrays (S,), `CellState.pulled_tensors` so far.
        objectives: K arrays (S,), (1/n) sum of losses + (lambda/2n)|theta - theta_0|^2.
        rises: K arrays (S,), `CellState.rises` so far.
        observed: by name, K arrays (S,) of what an observer found; nan where a loss was not finite or exploded, too.
    """

    steps: list[int] = field(default_factory=list)
    train_outputs: list[NDArray[np.float64]] = field(default_factory=list)
    eval_outputs: list[NDArray[np.float64]] = field(default_factory=list)
    distances: list[NDArray[np.float64]] = field(default_factory=list)
    pulled: list[NDArray[np.float64]] = field(default_factory=list)
    pulled_tensors: list[NDArray[np.float64]] = field(default_factory=list)
    objectives: list[NDArray[np.float64]] = field(default_factory=list)
    rises: list[NDArray[np.float64]] = field(default_factory=list)
    observed: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)


@dataclass
class CellState:
    """One cell while it is trained.

    Attributes:
        status: how it ended; FINISHED as long as it has not.
        active: whether it is still trained.
        kept: the displacement that it ends with: the last that was evaluated, or the best one with early stopping.
        kept_evaluation: the number of that evaluation, from 0.
        best_loss: evaluation loss there.
        worse: evaluations since then.
        failed_step: updates made before the loss was not finite, or exploded; None if that did not happen.
        evaluations: number of its evaluations while it was trained; these are the trajectory's first ones.
        updates: updates of its weights.
        pulled: those at which the regularizer changed something.
        pulled_tensors: sum over updates of the share of tensors that the regularizer changed.
        objective: (1/n) sum of losses + (lambda/2n)|theta - theta_0|^2 where it was known last.
        rises: how often it had risen since it was known before, by more than rounding: from evaluation to evaluation,
            or, of gradient descent, from step to step.
    """

    kept: Displacement
    status: CellStatus = CellStatus.FINISHED
    active: bool = True
    kept_evaluation: int = 0
    best_loss: float = float("inf")
    worse: int = 0
    failed_step: int | None = None
    evaluations: int = 0
    updates: int = 0
    pulled: int = 0
    pulled_tensors: float = 0.0
    objective: float = float("inf")
    rises: int = 0

    def follow(self, objective: float, rounding: float) -> None:
        """Count a rise of the objective if it exceeds the last ones by more than the share `rounding`.

        It is compared with its lowest value since it last rose, so that many small rises are not overlooked.
        """
        if objective > self.objective * (1 + rounding):
            self.rises += 1
            self.objective = objective
        elif objective < self.objective:
            self.objective = objective


@dataclass
class TrainingState:
    """Everything that the rest of a run depends on.

    Attributes:
        displacements: of the model's S cells, changed in place.
        optimizer: with one parameter group a cell.
        cells: how each cell stands.
        trajectory: what was seen so far.
        step: updates made.
    """

    displacements: list[Displacement]
    optimizer: torch.optim.Optimizer
    cells: list[CellState]
    trajectory: Trajectory
    step: int = 0

    @classmethod
    def first(cls, displacements: list[Displacement], optimizer: torch.optim.Optimizer) -> "TrainingState":
        """Return the state before the first step."""
        cells = [CellState(copied(displacement)) for displacement in displacements]
        return cls(displacements, optimizer, cells, Trajectory())

    def active(self) -> list[int]:
        """Return the cells that are still trained."""
        return [number for number, cell in enumerate(self.cells) if cell.active]


@dataclass(frozen=True)
class TrainingRun:
    """A training run that has ended.

    Attributes:
        trajectory: values at each evaluation.
        cells: how each cell ended, and its displacement.
    """

    trajectory: Trajectory
    cells: list[CellState]

    def part(self, chosen: slice) -> "TrainingRun":
        """Return the run of some of the cells."""
        seen = self.trajectory
        by_cell = {name: [values[chosen] for values in getattr(seen, name)] for name in SEEN}
        observed = {name: [values[chosen] for values in evaluations] for name, evaluations in seen.observed.items()}
        return TrainingRun(replace(seen, **by_cell, observed=observed), self.cells[chosen])


def copied(displacement: Displacement) -> Displacement:
    """Return a copy of a displacement, without its graph."""
    return {name: tensor.detach().clone() for name, tensor in displacement.items()}


@torch.no_grad()
def norm(displacement: Displacement) -> float:
    """Return |theta - theta_0| over all parameters together."""
    return float(torch.linalg.vector_norm(torch.stack([tensor.double().norm() for tensor in displacement.values()])))
