"""One training run as numbers of its task: losses, metrics and distances at its evaluations and at its end."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from finetune.training.losses import example_losses
from finetune.training.settings import TrainingSettings
from ntk_dist.arrays import FloatArray
from orchestrator.stages.context.problem import Problem
from orchestrator.stages.finetune.trained_cells import TrainedCells


class TrainedRun:
    """One training run, its outputs as numbers of the task."""

    def __init__(self, problem: Problem, trained: TrainedCells, training: TrainingSettings) -> None:
        self.problem = problem
        self.training = training
        self.trained = trained
        self.steps = trained.array("steps")
        self.kept = trained.array("kept")
        self.evaluations = trained.array("evaluations")
        self.updates = trained.array("update_norm")
        self.outputs: dict[str, FloatArray] = {
            split: np.array(trained.array(f"{split}_outputs"), dtype=np.float64) for split in ("train", "eval")
        }

    def ended(self, split: str) -> FloatArray:
        """Return the outputs (S, n, R) of the weights that each cell ends with."""
        return np.asarray(self.outputs[split][self.kept, np.arange(len(self.kept))])

    def seen(self, evaluation: int) -> npt.NDArray[np.bool_]:
        """Return which cells (S,) had finite outputs then; those of a cell that had ended are nan."""
        if evaluation >= len(self.steps):
            return np.zeros(len(self.evaluations), dtype=np.bool_)
        finite = [np.isfinite(outputs[evaluation]).all(axis=(1, 2)) for outputs in self.outputs.values()]
        return np.asarray(np.logical_and.reduce(finite))

    def trajectory(self, n_evaluations: int) -> dict[str, FloatArray]:
        """Return losses, metrics, distances, shares and observed values, (K, S) each; nan where a cell had ended."""
        found: dict[str, FloatArray] = {}
        for evaluation in range(n_evaluations):
            seen = self.seen(evaluation)
            if seen.any():
                scores = self._scores(*(self.outputs[split][evaluation, seen] for split in ("train", "eval")))
                fill(found, scores, evaluation, seen, n_evaluations)
        since = np.maximum(1, np.diff(self.steps, prepend=0))[:, None]
        others = {"distance": self.trained.array("distances"), "loss_rises": self.rises()} | {
            name: np.diff(self.trained.array(name), axis=0, prepend=0) / since for name in ("pulled", "pulled_tensors")
        }
        missing = np.full((n_evaluations - len(self.steps), len(self.evaluations)), np.nan)
        for name, values in (others | self._observed()).items():
            found[name] = np.concatenate([values, missing])
        return found

    def cells(self) -> dict[str, FloatArray]:
        """Return the numbers of each cell at its end, (S,) each."""
        place = (self.kept, np.arange(len(self.kept)))
        failed = [np.nan if step is None else step for step in self.trained.facts["failed_step"]]
        found = self._scores(self.ended("train"), self.ended("eval")) | {
            "steps": self.steps[self.kept].astype(np.float64),
            "failed_step": np.array(failed, dtype=np.float64),
            "distance": self.trained.array("distances")[place],
            "loss_rises": self.rises()[place],
        }
        updates = self.trained.array("ended.updates")
        for name in ("pulled", "pulled_tensors"):
            counted = self.trained.array(f"ended.{name}")
            found[name] = np.divide(counted, updates, out=np.full_like(counted, np.nan), where=updates > 0)
        return found | {name: values[place] for name, values in self._observed().items()}

    def rises(self) -> FloatArray:
        """Return how often the objective had risen (K, S); nan where lambda is no part of it."""
        counted = np.array(self.trained.array("rises"), dtype=np.float64)
        return np.full_like(counted, np.nan) if self.training.regularizer == "spd" else counted

    def first_losses(self) -> FloatArray:
        """Return the training losses (S,) before training."""
        return self._scores(*(self.outputs[split][0] for split in ("train", "eval")))["train_loss"]

    def _observed(self) -> dict[str, FloatArray]:
        """Return the observed quantities, (K, S) each."""
        prefix = "observed."
        return {
            name.removeprefix(prefix): self.trained.array(name)
            for name in self.trained.names()
            if name.startswith(prefix)
        }

    def _scores(self, train: FloatArray, evaluation: FloatArray) -> dict[str, FloatArray]:
        """Return losses and metrics (S,) of outputs (S, n, R) of both splits."""
        scores: dict[str, FloatArray] = {}
        problem = self.problem
        for split, outputs, targets, labels in (
            ("train", train, problem.targets, problem.labels),
            ("eval", evaluation, problem.eval_targets, problem.eval_labels),
        ):
            residuals = outputs - targets.reshape(outputs.shape[1:])
            scores[f"{split}_loss"] = np.einsum("snr,snr->s", residuals, residuals) / (2 * outputs.shape[1])
            if self.training.loss == "cross_entropy":
                classes = torch.from_numpy(labels.astype(np.int64)).expand(len(outputs), -1)
                losses = example_losses("cross_entropy", torch.from_numpy(outputs), classes)
                scores[f"{split}_cross_entropy"] = losses.mean(dim=1).numpy()
            scores |= problem.metrics(split, outputs)
        return scores


def fill(
    found: dict[str, FloatArray],
    values: Mapping[str, FloatArray],
    evaluation: int,
    cells: npt.NDArray[np.bool_],
    n_evaluations: int,
) -> None:
    """Write the values of some cells at one evaluation into arrays (K, S), which start as nan."""
    for name, of_cells in values.items():
        found.setdefault(name, np.full((n_evaluations, len(cells)), np.nan))[evaluation, cells] = of_cells
