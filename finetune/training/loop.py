"""The training loop: the same for the model and for its linearization, for one cell and for several side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.training import regularizers
from finetune.training.losses import example_losses
from finetune.training.outputs import all_outputs
from finetune.training.run import (
    CellStatus,
    Checkpoint,
    NoCheckpoint,
    Observer,
    TrainingRun,
    TrainingState,
    copied,
    norm,
)
from finetune.training.saving import restore, saved
from finetune.training.settings import Cell, TrainingSettings
from finetune.training.stepping import learning_rate, make_optimiser, step_batches
from finetune.training.trainable import Displacement, Split, Trainable

EXPLODED = 1e4
"""Times its first value at which a training loss counts as exploded: whatever comes back from there is chance."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What the outputs are compared with: (n, R) numbers or (n,) classes, see `finetune.training.losses`."""

    train: Tensor
    eval: Tensor

    def of(self, split: Split) -> Tensor:
        """Return those of a split."""
        return self.train if split == "train" else self.eval


def train(
    model: Trainable,
    targets: Targets,
    settings: TrainingSettings,
    strengths: Sequence[float],
    *,
    seed: int,
    checkpoint: Checkpoint | None = None,
    observer: Observer | None = None,
    at_once: int | None = None,
) -> TrainingRun:
    """Train every cell of a model that has one origin, as `train_cells` does.

    Args:
        model: the model, its displacements zero.
        targets: of both splits.
        settings: how to train.
        strengths: (S,) lambda of each cell, absolute.
        seed: of the order of examples.
        checkpoint: see `train_cells`, as all that follows.
        observer: see there.
        at_once: see there.
    """
    cells = [Cell(strength, settings.learning_rate) for strength in strengths]
    return train_cells(
        model, [targets], settings, cells, seeds=[seed], checkpoint=checkpoint, observer=observer, at_once=at_once
    )


def train_cells(
    model: Trainable,
    targets: Sequence[Targets],
    settings: TrainingSettings,
    cells: Sequence[Cell],
    *,
    seeds: Sequence[int],
    checkpoint: Checkpoint | None = None,
    observer: Observer | None = None,
    at_once: int | None = None,
) -> TrainingRun:
    """Train every cell of a model.

    A cell whose loss is not finite, or explodes, ends as DIVERGED with the last displacement that was looked at; the
    others go on. The numbers depend on the arguments alone, not on interruptions; those of a cell agree with the ones
    that it gets by itself to rounding.

    Args:
        model: the model, its displacements zero; its origins have equally many examples.
        targets: of both splits, for each origin.
        settings: how to train; of its learning rates only the schedule counts.
        cells: the cells.
        seeds: of the order of examples, for each origin.
        checkpoint: keeps how far the run is, and lets it go on from there.
        observer: looks at the displacements whenever all examples are looked at.
        at_once: most examples that go through the model at once, where memory does not allow `batch_examples`; the
            numbers agree with those of whole batches to rounding.
    """
    training = _Training(model, targets, settings, cells, seeds)
    training.observer = observer
    training.at_once = min(at_once or settings.batch_examples, settings.batch_examples)
    return training.run(checkpoint or NoCheckpoint())


class _Training:
    def __init__(
        self,
        model: Trainable,
        targets: Sequence[Targets],
        settings: TrainingSettings,
        cells: Sequence[Cell],
        seeds: Sequence[int],
    ) -> None:
        self.model = model
        self.targets = targets
        self.settings = settings
        self.cells = cells
        self.seeds = seeds
        self.observer: Observer | None = None
        self.at_once = settings.batch_examples
        self.n = len(targets[0].train)
        self.state = TrainingState.first(model.displacements, make_optimiser(settings, model.displacements))

    def run(self, checkpoint: Checkpoint) -> TrainingRun:
        state = self.state
        kept = checkpoint.load()
        if kept is None:
            self._look()
        else:
            restore(kept, state)
        while state.step < self.settings.steps and state.active():
            self._update()
            state.step += 1
            if state.step % self.settings.record_every == 0 or state.step == self.settings.steps:
                self._look()
            if checkpoint.due():
                checkpoint.save(saved(state))
        return TrainingRun(state.trajectory, state.cells)

    def _update(self) -> None:
        active = self.state.active()
        rates = [learning_rate(self.settings, self.state.step, cell.learning_rate) for cell in self.cells]
        losses = self._accumulate(active)
        going = [cell for cell, loss in zip(active, losses, strict=True) if not self._has_diverged(cell, loss)]
        before = {cell: self._before_step(cell) for cell in going}
        for cell, group in enumerate(self.state.optimiser.param_groups):
            group["lr"] = rates[cell]
            if cell in going:
                self._regularize_gradient(cell)
            else:  # without gradients the optimiser leaves it as it is
                _forget_gradients(self.model.displacements[cell])
        self.state.optimiser.step()
        for cell in going:
            self._regularize_step(cell, before[cell], rates[cell])

    def _accumulate(self, active: list[int]) -> list[float]:
        """Set the gradients of R / n at one step's examples; return the loss of each cell there."""
        self.state.optimiser.zero_grad(set_to_none=True)
        batches = [
            step_batches(self.settings, lengths, self.state.step, seed, self.at_once)
            for lengths, seed in zip(self.model.lengths("train"), self.seeds, strict=True)
        ]
        n_examples = sum(len(batch) for batch in batches[0])
        total = np.zeros(len(active))
        # Origins have equally many examples, so that the batches of all of them have the same sizes.
        for positions in zip(*batches, strict=True):
            outputs = self.model.outputs("train", positions, active)
            targets = self._of_cells(
                [each.train[chosen] for each, chosen in zip(self.targets, positions, strict=True)], active
            )
            losses = example_losses(self.settings.loss, outputs, targets.to(outputs.device)).sum(dim=1) / n_examples
            losses.sum().backward()  # type: ignore[no-untyped-call]
            total += losses.detach().double().cpu().numpy()
        return [float(loss) for loss in total]

    def _of_cells(self, by_origin: Sequence[Tensor], cells: Sequence[int]) -> Tensor:
        """Return targets (S, B, ...) of some cells, from those (B, ...) of each origin."""
        return torch.stack([by_origin[self.model.origins[cell]] for cell in cells])

    def _has_diverged(self, cell: int, loss: float) -> bool:
        gradients = [tensor.grad.sum() for tensor in self.model.displacements[cell].values() if tensor.grad is not None]
        finite = math.isfinite(loss) and math.isfinite(float(torch.stack(gradients).sum()))
        if finite and loss <= EXPLODED * max(self._first_losses[cell], 1e-12):
            return False
        ended = self.state.cells[cell]
        ended.status, ended.active, ended.failed_step = CellStatus.DIVERGED, False, self.state.step
        return True

    def _regularize_gradient(self, cell: int) -> None:
        displacement, strength = self.model.displacements[cell], self.cells[cell].strength / self.n
        if self.settings.regularizer == "l2sp":
            regularizers.pull(displacement, strength)
        if self.settings.regularizer == "selective":
            self.state.pulled[cell] += regularizers.pull_selectively(displacement, strength)
        else:
            self.state.pulled[cell] += 1
        if self.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(displacement.values(), self.settings.clip_norm)

    def _before_step(self, cell: int) -> Displacement:
        """Return what `_regularize_step` has to know of a displacement before the optimiser's step."""
        needed = self.settings.regularizer in ("decoupled", "spd")
        return copied(self.model.displacements[cell]) if needed else {}

    def _regularize_step(self, cell: int, before: Displacement, rate: float) -> None:
        displacement, strength = self.model.displacements[cell], self.cells[cell].strength
        if self.settings.regularizer == "decoupled":
            regularizers.decay(displacement, before, strength / self.n, rate)
        if self.settings.regularizer == "spd":
            regularizers.project(displacement, before, strength)

    def _look(self) -> None:
        """Record all cells as they stand, and decide which go on."""
        state, seen = self.state, self.state.trajectory
        since = state.step - (seen.steps[-1] if seen.steps else 0)
        seen.steps.append(state.step)
        # Before the first step nothing has moved, so that one cell speaks for all of its origin.
        origins = self.model.origins
        cells = list(range(len(origins))) if state.step else [origins.index(origin) for origin in origins]
        seen.train_outputs.append(self._outputs("train", cells))
        seen.eval_outputs.append(self._outputs("eval", cells))
        seen.distances.append(np.array([norm(displacement) for displacement in state.displacements]))
        seen.pulled.append(state.pulled / max(1, since))
        state.pulled = np.zeros(len(state.cells))
        for name, values in (self.observer(state.displacements) if self.observer else {}).items():
            seen.observed.setdefault(name, []).append(values)
        eval_losses = self._losses("eval", seen.eval_outputs[-1])
        for cell in state.active():
            self._keep(cell, float(eval_losses[cell]))

    def _keep(self, cell: int, eval_loss: float) -> None:
        seen, ended, patience = self.state.trajectory, self.state.cells[cell], self.settings.patience
        if not np.isfinite(seen.train_outputs[-1][cell]).all():
            return  # the next step finds that it has diverged, and ends it with what was kept before
        if patience is None or eval_loss < ended.best_loss:
            ended.kept, ended.kept_record = copied(self.state.displacements[cell]), len(seen.steps) - 1
            ended.best_loss, ended.worse = eval_loss, 0
            return
        ended.worse += 1
        if ended.worse >= patience:
            ended.status, ended.active = CellStatus.STOPPED_EARLY, False

    def _outputs(self, split: Split, cells: list[int]) -> NDArray[np.float64]:
        """Return the outputs (S, n, R) of all examples; of cells that have ended those of where they stood."""
        distinct = list(dict.fromkeys(cells))
        outputs = all_outputs(self.model, split, distinct, at_once=self.at_once)
        return outputs[[distinct.index(cell) for cell in cells]]

    @cached_property
    def _first_losses(self) -> NDArray[np.float64]:
        return self._losses("train", self.state.trajectory.train_outputs[0])

    def _losses(self, split: Split, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean loss (S,) of outputs (S, n, R)."""
        targets = self._of_cells([each.of(split) for each in self.targets], range(len(outputs)))
        targets = targets.double() if targets.is_floating_point() else targets
        losses = example_losses(self.settings.loss, torch.from_numpy(outputs), targets)
        return np.asarray(losses.mean(dim=1).numpy(), dtype=np.float64)


def _forget_gradients(displacement: Displacement) -> None:
    for tensor in displacement.values():
        tensor.grad = None
