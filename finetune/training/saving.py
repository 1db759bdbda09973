"""A training run as arrays, for checkpoints: no pickle, and the same bits when it goes on."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.training.run import SEEN, Arrays, CellState, CellStatus, TrainingState
from finetune.training.trainable import Displacement

_STATUSES = list(CellStatus)


def saved(state: TrainingState) -> Arrays:
    """Return a state as arrays."""
    seen = state.trajectory
    arrays: Arrays = {"step": np.array([state.step]), "seen.steps": np.array(seen.steps)}
    for name in SEEN:
        arrays[f"seen.{name}"] = np.stack(getattr(seen, name))
    arrays |= {f"observed.{name}": np.stack(values) for name, values in seen.observed.items()}
    for number, (displacement, cell) in enumerate(zip(state.displacements, state.cells, strict=True)):
        arrays |= {
            f"{number}.{name}": array for name, array in _saved_cell(displacement, cell, state.optimizer).items()
        }
    return arrays


def restore(arrays: Mapping[str, NDArray[np.generic]], state: TrainingState) -> None:
    """Put back what `saved` returned."""
    state.step = int(np.asarray(arrays["step"], dtype=np.int64)[0])
    state.trajectory.steps = [int(step) for step in np.asarray(arrays["seen.steps"], dtype=np.int64)]
    for name in SEEN:
        setattr(state.trajectory, name, list(arrays[f"seen.{name}"]))
    state.trajectory.observed = {
        name.removeprefix("observed."): [np.array(row, dtype=np.float64) for row in values]
        for name, values in arrays.items()
        if name.startswith("observed.")
    }
    for number, (displacement, cell) in enumerate(zip(state.displacements, state.cells, strict=True)):
        prefix = f"{number}."
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        _restore_cell(own, displacement, cell, state.optimizer)


def _saved_cell(displacement: Displacement, cell: CellState, optimizer: torch.optim.Optimizer) -> Arrays:
    failed = -1 if cell.failed_step is None else cell.failed_step
    arrays: Arrays = {
        "status": np.array([_STATUSES.index(cell.status)]),
        "counts": np.array(
            [
                cell.active,
                cell.kept_evaluation,
                cell.worse,
                failed,
                cell.evaluations,
                cell.updates,
                cell.pulled,
                cell.rises,
            ]
        ),
        "sums": np.array([cell.best_loss, cell.pulled_tensors, cell.objective]),
    }
    for name, tensor in displacement.items():
        arrays[f"now.{name}"] = _as_array(tensor)
        arrays[f"kept.{name}"] = _as_array(cell.kept[name])
        memory = optimizer.state.get(tensor, {})
        arrays |= {f"optimizer.{key}.{name}": _as_array(value) for key, value in memory.items() if value is not None}
    return arrays


@torch.no_grad()
def _restore_cell(
    arrays: Mapping[str, NDArray[np.generic]],
    displacement: Displacement,
    cell: CellState,
    optimizer: torch.optim.Optimizer,
) -> None:
    cell.status = _STATUSES[int(np.asarray(arrays["status"], dtype=np.int64)[0])]
    active, cell.kept_evaluation, cell.worse, failed, cell.evaluations, cell.updates, cell.pulled, cell.rises = (
        int(count) for count in np.asarray(arrays["counts"], dtype=np.int64)
    )
    cell.active, cell.failed_step = bool(active), None if failed < 0 else failed
    sums = (float(total) for total in np.asarray(arrays["sums"], dtype=np.float64))
    cell.best_loss, cell.pulled_tensors, cell.objective = sums
    for name, tensor in displacement.items():
        tensor.copy_(_as_tensor(arrays[f"now.{name}"]))
        cell.kept[name] = _as_tensor(arrays[f"kept.{name}"]).to(tensor.device)
    for key, array in arrays.items():
        if key.startswith("optimizer."):
            _, memory, name = key.split(".", 2)
            tensor, value = displacement[name], _as_tensor(array)
            # the optimizer's state of a parameter is on its device; counts of steps stay on the CPU
            optimizer.state[tensor][memory] = value.to(tensor.device) if value.shape == tensor.shape else value


def _as_tensor(array: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def _as_array(value: torch.Tensor) -> NDArray[np.generic]:
    return value.detach().cpu().numpy().copy()
