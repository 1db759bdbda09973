"""The training loop: the same for the model and for its linearization, for one cell and for stacked ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.training import regularizers
from finetune.training.checkpoint import Checkpoint, NoCheckpoint
from finetune.training.losses import example_losses
from finetune.training.outputs import all_outputs
from finetune.training.run import (
    CellStatus,
    Observer,
    TrainingRun,
    TrainingState,
    Watcher,
    copied,
    norm,
)
from finetune.training.saving import restore, saved
from finetune.training.settings import Cell, TrainingSettings
from finetune.training.stepping import learning_rate, make_optimizer, step_batches
from finetune.training.trainable import Displacement, Split, Trainable
from ntk_dist.device.transfers import sent

EXPLODED = 1e4
"""Ratio to its first value above which a training loss counts as exploded: a recovery would be chance."""


ROUNDED = 32.0
"""Machine epsilons of the weights' precision, relative to the objective, by which its sum over examples may err."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets of the outputs: (n, R) numbers or (n,) classes, see `finetune.training.losses`."""

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
    watcher: Watcher | None = None,
) -> TrainingRun:
    """Train every cell of a model.

    A cell whose loss is not finite, or explodes, ends as DIVERGED with the last displacement that was evaluated before;
    the others go on. The numbers depend on the arguments alone, not on interruptions; those of a cell agree with the
    ones that it gets by itself to rounding. The trained weights are saved before their last evaluation, so that a
    failure after that costs no step.

    Args:
        model: the model, its displacements zero; its origins have equally many examples.
        targets: of both splits, for each origin.
        settings: how to train; of its learning rates only the schedule counts.
        cells: the cells.
        seeds: of the order of examples, for each origin.
        checkpoint: keeps how far the run is, and lets it go on from there.
        observer: gets the displacements at every evaluation.
        at_once: most examples that go through the model at once, where memory does not allow `batch_size`; the
            numbers agree with those of whole batches to rounding.
        watcher: is told the losses while training goes on.
    """
    training = _Training(model, targets, settings, cells, seeds)
    training.observer = observer
    training.watcher = watcher
    training.at_once = min(at_once or settings.batch_size, settings.batch_size)
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
        self.watcher: Watcher | None = None
        self.step_losses: dict[int, float] = {}
        self.at_once = settings.batch_size
        self.n = len(targets[0].train)
        self.state = TrainingState.first(model.displacements, make_optimizer(settings, model.displacements))

    def run(self, checkpoint: Checkpoint) -> TrainingRun:
        state = self.state
        kept = checkpoint.load()
        if kept is not None:
            restore(kept, state)
        if self._evaluation_is_due():
            self._evaluate()
        while state.step < self.settings.steps and state.active():
            self._update()
            state.step += 1
            if self.watcher is not None:
                self.watcher.stepped(state.step, self.step_losses)
            if self._may_be_the_end() or checkpoint.due():
                checkpoint.save(saved(state))
            if self._evaluation_is_due():
                self._evaluate()
        if state.step < self.settings.steps:  # an evaluation ended the last cells
            checkpoint.save(saved(state))
        return TrainingRun(state.trajectory, state.cells)

    def _evaluation_is_due(self) -> bool:
        step, seen = self.state.step, self.state.trajectory.steps
        due = step % self.settings.eval_steps == 0 or step == self.settings.steps
        return due and bool(self.state.active()) and step not in seen[-1:]

    def _may_be_the_end(self) -> bool:
        """Tell whether no further step may follow, as the evaluation that is due may end the last cell."""
        if self.state.step == self.settings.steps or not self.state.active():
            return True
        return self.settings.early_stopping_patience is not None and self._evaluation_is_due()

    def _update(self) -> None:
        active = self.state.active()
        rates = [learning_rate(self.settings, self.state.step, cell.learning_rate) for cell in self.cells]
        going = self._still_finite(active, self._accumulate(active))
        if self.settings.optimizer == "gradient_descent":  # whose losses are those of all examples
            self._follow(going, {cell: self.step_losses[cell] for cell in going})
        before = {cell: self._before_step(cell) for cell in going}
        changed: dict[int, list[Tensor]] = {cell: [] for cell in going}
        for cell, group in enumerate(self.state.optimizer.param_groups):
            group["lr"] = rates[cell]
            if cell in going:
                changed[cell] += self._regularize_gradient(cell)
            else:  # without gradients the optimizer does not change it
                _forget_gradients(self.model.displacements[cell])
        self.state.optimizer.step()
        for cell in going:
            changed[cell] += self._regularize_step(cell, before[cell], rates[cell])
        self._count(changed)

    def _accumulate(self, active: list[int]) -> Tensor:
        """Set the gradients of R / n at one step's examples; return the loss of each cell there, (S,)."""
        self.state.optimizer.zero_grad(set_to_none=True)
        batches = [
            step_batches(self.settings, lengths, self.state.step, seed, self.at_once)
            for lengths, seed in zip(self.model.lengths("train"), self.seeds, strict=True)
        ]
        n_examples = sum(len(batch) for batch in batches[0])
        total: Tensor | float = 0.0
        # Origins have equally many examples, so that the batches of all of them have the same sizes.
        for positions in zip(*batches, strict=True):
            outputs = self.model.outputs("train", positions, active)
            targets = self._of_cells(
                [each.train[chosen] for each, chosen in zip(self.targets, positions, strict=True)], active
            )
            losses = example_losses(self.settings.loss, outputs, sent(targets, outputs.device)).sum(dim=1) / n_examples
            losses.sum().backward()  # type: ignore[no-untyped-call]
            total = total + losses.detach().double()
        assert isinstance(total, Tensor), "a step has examples"
        return total

    def _of_cells(self, by_origin: Sequence[Tensor], cells: Sequence[int]) -> Tensor:
        """Return targets (S, B, ...) of some cells, from those (B, ...) of each origin."""
        return torch.stack([by_origin[self.model.origins[cell]] for cell in cells])

    def _still_finite(self, active: list[int], losses: Tensor) -> list[int]:
        """Return the cells that go on after losses (S,), and end the others as diverged. Waits for the device once."""
        sums = torch.stack([self._sum_of_gradients(cell) for cell in active]).to(losses.device)
        found = torch.stack([losses, sums]).tolist()
        self.step_losses = dict(zip(active, found[0], strict=True))
        going = []
        for cell, loss, total in zip(active, *found, strict=True):
            if math.isfinite(total) and not self._has_exploded(cell, loss):
                going.append(cell)
            else:
                self._end_as_diverged(cell)
        return going

    def _sum_of_gradients(self, cell: int) -> Tensor:
        """Return a number () that is finite if all gradients of a cell are."""
        gradients = [tensor.grad.sum() for tensor in self.model.displacements[cell].values() if tensor.grad is not None]
        return torch.stack(gradients).sum().double()

    def _has_exploded(self, cell: int, loss: float) -> bool:
        return not math.isfinite(loss) or loss > EXPLODED * max(self._first_losses[cell], 1e-12)

    def _end_as_diverged(self, cell: int) -> None:
        ended = self.state.cells[cell]
        ended.status, ended.active, ended.failed_step = CellStatus.DIVERGED, False, self.state.step

    def _count(self, changed: dict[int, list[Tensor]]) -> None:
        """Count an update of each cell, with the number () of tensors that the regularizer changed in it."""
        counts = torch.stack([number for each in changed.values() for number in each] or [torch.tensor(0)]).tolist()
        for cell, each in changed.items():
            n_changed = sum(counts.pop(0) for _ in each)
            counted = self.state.cells[cell]
            counted.updates += 1
            counted.pulled += n_changed > 0
            counted.pulled_tensors += n_changed / len(self.model.displacements[cell])

    def _regularize_gradient(self, cell: int) -> list[Tensor]:
        """Change the gradient of a cell as the settings say; return the numbers of tensors changed by a regularizer."""
        displacement, strength = self.model.displacements[cell], self.cells[cell].strength / self.n
        changed = []
        if self.settings.regularizer == "l2sp":
            changed.append(regularizers.pull(displacement, strength))
        if self.settings.regularizer == "selective":
            changed.append(regularizers.pull_selectively(displacement, strength))
        if self.settings.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(displacement.values(), self.settings.max_grad_norm)
        return changed

    def _before_step(self, cell: int) -> Displacement:
        """Return a copy of a cell's displacement before the optimizer's step if `_regularize_step` needs it."""
        needed = self.settings.regularizer in ("decoupled", "spd")
        return copied(self.model.displacements[cell]) if needed else {}

    def _regularize_step(self, cell: int, before: Displacement, rate: float) -> list[Tensor]:
        """Change the step of a cell as the settings say; return the numbers of changed tensors, if any."""
        displacement, strength = self.model.displacements[cell], self.cells[cell].strength
        if self.settings.regularizer == "decoupled":
            return [regularizers.decay(displacement, before, strength / self.n, rate)]
        if self.settings.regularizer == "spd":
            return [regularizers.project(displacement, before, strength)]
        return []

    def _evaluate(self) -> None:
        """Record the cells that are trained as they stand, and decide which go on."""
        state, seen = self.state, self.state.trajectory
        evaluated = state.active()
        # Before the first step nothing has moved, so that one cell speaks for all of its origin.
        origins = self.model.origins
        cells = evaluated if state.step else [origins.index(origin) for origin in origins]
        outputs: dict[Split, NDArray[np.float64]] = {"train": self._outputs("train", cells)}
        outputs["eval"] = self._outputs("eval", cells)
        chosen = [state.cells[cell] for cell in evaluated]
        losses = {split: self._losses(split, values, evaluated) for split, values in outputs.items()}
        objectives = self._follow(evaluated, dict(zip(evaluated, losses["train"].tolist(), strict=True)))
        seen.steps.append(state.step)
        for found, values in (
            (seen.train_outputs, outputs["train"]),
            (seen.eval_outputs, outputs["eval"]),
            (seen.distances, np.array([norm(state.displacements[cell]) for cell in evaluated])),
            (seen.pulled, np.array([cell.pulled for cell in chosen])),
            (seen.pulled_tensors, np.array([cell.pulled_tensors for cell in chosen])),
            (seen.objectives, objectives),
            (seen.rises, np.array([cell.rises for cell in chosen])),
        ):
            found.append(self._of_all_cells(values, evaluated))
        if self.watcher is not None:
            of_cells = (dict(zip(evaluated, losses[split].tolist(), strict=True)) for split in ("train", "eval"))
            self.watcher.evaluated(state.step, *of_cells)
        for cell, train_loss, eval_loss in zip(evaluated, losses["train"], losses["eval"], strict=True):
            state.cells[cell].evaluations += 1
            if self._has_exploded(cell, float(train_loss)):
                self._end_as_diverged(cell)
            else:
                self._keep(cell, float(eval_loss))
        self._observe([cell for cell in evaluated if state.cells[cell].status is not CellStatus.DIVERGED])

    def _follow(self, cells: Sequence[int], losses: Mapping[int, float]) -> NDArray[np.float64]:
        """Return the objectives of S cells, (S,), given mean losses over all examples; count those that have risen."""
        found = []
        for cell in cells:
            displacement = self.state.displacements[cell]
            penalty = self.cells[cell].strength / (2 * self.n) * norm(displacement) ** 2
            rounding = ROUNDED * torch.finfo(next(iter(displacement.values())).dtype).eps
            self.state.cells[cell].follow(losses[cell] + penalty, rounding)
            found.append(losses[cell] + penalty)
        return np.array(found)

    def _observe(self, cells: list[int]) -> None:
        """Record the observer's results for some cells, if there is an observer."""
        if self.observer is None:
            return
        observed = self.state.trajectory.observed
        for name, values in self.observer({cell: self.state.displacements[cell] for cell in cells}).items():
            observed.setdefault(name, []).append(self._of_all_cells(values, cells))

    def _of_all_cells(self, values: NDArray[np.float64], cells: list[int]) -> NDArray[np.float64]:
        """Extend values of some cells to all cells, with nan for the others."""
        found = np.full((len(self.cells), *values.shape[1:]), np.nan)
        found[cells] = values
        return found

    def _keep(self, cell: int, eval_loss: float) -> None:
        seen, ended, patience = self.state.trajectory, self.state.cells[cell], self.settings.early_stopping_patience
        if patience is None or eval_loss < ended.best_loss:
            ended.kept, ended.kept_evaluation = copied(self.state.displacements[cell]), len(seen.steps) - 1
            ended.best_loss, ended.worse = eval_loss, 0
            return
        ended.worse += 1
        if ended.worse >= patience:
            ended.status, ended.active = CellStatus.STOPPED_EARLY, False

    def _outputs(self, split: Split, cells: list[int]) -> NDArray[np.float64]:
        """Return the outputs (S, n, R) of all examples."""
        distinct = list(dict.fromkeys(cells))
        outputs = all_outputs(self.model, split, distinct, at_once=self.at_once)
        return outputs[[distinct.index(cell) for cell in cells]]

    @cached_property
    def _first_losses(self) -> NDArray[np.float64]:
        return self._losses("train", self.state.trajectory.train_outputs[0], range(len(self.cells)))

    def _losses(self, split: Split, outputs: NDArray[np.float64], cells: Sequence[int]) -> NDArray[np.float64]:
        """Return the mean loss (S,) of outputs (S, n, R) of S of the cells."""
        targets = self._of_cells([each.of(split) for each in self.targets], cells)
        targets = targets.double() if targets.is_floating_point() else targets
        losses = example_losses(self.settings.loss, torch.from_numpy(outputs), targets)
        return np.asarray(losses.mean(dim=1).numpy(), dtype=np.float64)


def _forget_gradients(displacement: Displacement) -> None:
    for tensor in displacement.values():
        tensor.grad = None
