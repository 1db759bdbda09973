"""The artifact of trained cells: arrays that a training stage stores for each run, and a reader for other stages."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from finetune.analysis.updates import group_updates
from finetune.training.origins import starting_from
from finetune.training.run import SEEN, CellState, TrainingRun, Trajectory
from finetune.training.trainable import Displacement
from orchestrator.stages.finetune.training_inputs import TrainingInputs
from orchestrator.store.artifacts import Artifact
from orchestrator.store.batched import Array


class TrainedCells:
    """The cells of one run, in an artifact that may hold several.

    Args:
        artifact: of a stage `finetune`.
        run: number of the run.
    """

    def __init__(self, artifact: Artifact, run: int) -> None:
        self._artifact = artifact
        self._prefix = f"{run}."
        self.facts: Mapping[str, Any] = artifact.facts["runs"][run]

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        found = self._artifact.names()
        return [name.removeprefix(self._prefix) for name in found if name.startswith(self._prefix)]

    def array(self, name: str) -> Array:
        """Return an array."""
        return np.array(self._artifact.array(self._prefix + name))

    def displacement(self, cell: int) -> Displacement:
        """Return the final weights of a cell minus its initial ones."""
        prefix = f"{cell}."
        return {
            name.removeprefix(prefix): torch.from_numpy(self.array(name))
            for name in self.names()
            if name.startswith(prefix)
        }


def arrays_of(inputs: TrainingInputs, run: TrainingRun, lambdas: Sequence[float], n_examples: int) -> dict[str, Array]:
    """Return the arrays of a run of S cells that were evaluated K times in training.

    They are `steps` (K,); `train_outputs` (K, S, n, R), `eval_outputs` (K, S, m, R), `distances`, `pulled`,
    `pulled_tensors`, `objectives` and `rises` (K, S) as `finetune.training.run.Trajectory` has them; what was observed,
    `observed.<name>` (K, S); `evaluations` (S,), how many of the K evaluations a cell has; `ended.updates`,
    `ended.pulled` and `ended.pulled_tensors` (S,) of `finetune.training.run.CellState` at its end; `kept` (S,), the
    evaluation whose weights it ends with; `lambda` (S,), absolute; `update_norm` and `weight_norm` (S, groups); the
    displacement of each cell, `<cell>.<parameter>`; and, where the kernel is followed, `curvature` and
    `linearization_error` (S,) of `finetune.training.smoothness`, but not of a sharded model, which cannot be
    differentiated twice.
    """
    n_curved = 0 if inputs.scorer.is_sharded else n_examples
    with starting_from(inputs.weights):
        curved = [inputs.smoothness(n_curved, cell.kept) for cell in run.cells if n_curved]
        updates = [group_updates(inputs.scorer, cell.kept, inputs.trained) for cell in run.cells]
    arrays: dict[str, Array] = {
        "lambda": np.array(lambdas),
        "kept": np.array([cell.kept_evaluation for cell in run.cells]),
        "evaluations": np.array([cell.evaluations for cell in run.cells]),
        "update_norm": np.array([[update.update_norm for update in each] for each in updates]),
        "weight_norm": np.array([[update.weight_norm for update in each] for each in updates]),
        **_trajectory(run.trajectory),
        **_ended(run.cells),
        **_displacements(run.cells),
    }
    if curved:
        arrays["curvature"] = np.array([each.curvature for each in curved])
        arrays["linearization_error"] = np.array([each.linearization_error for each in curved])
    return arrays


def facts_of(run: TrainingRun, learning_rate: float) -> dict[str, Any]:
    """Return how each cell of a run ended."""
    return {
        "status": [cell.status.value for cell in run.cells],
        "failed_step": [cell.failed_step for cell in run.cells],
        "learning_rate": learning_rate,
    }


def _trajectory(seen: Trajectory) -> dict[str, Array]:
    arrays = {name: np.stack(getattr(seen, name)) for name in SEEN}
    observed = {f"observed.{name}": np.stack(values) for name, values in seen.observed.items()}
    return {"steps": np.array(seen.steps), **arrays, **observed}


def _ended(cells: Sequence[CellState]) -> dict[str, Array]:
    names = ("updates", "pulled", "pulled_tensors")
    return {f"ended.{name}": np.array([getattr(cell, name) for cell in cells], dtype=np.float64) for name in names}


def _displacements(cells: Sequence[CellState]) -> dict[str, Array]:
    return {
        f"{number}.{name}": tensor.cpu().numpy()
        for number, cell in enumerate(cells)
        for name, tensor in cell.kept.items()
    }
