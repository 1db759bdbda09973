"""Outputs of the model and Jacobian rows of a training run's examples, as the stages `capture` left them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from finetune.training.linearized import LinearRows
from finetune.training.trainable import Split
from orchestrator.errors import SweepError
from orchestrator.stages.context.problem import Problem
from orchestrator.store.artifacts import Artifact
from orchestrator.store.batched import Array


class CapturedRows:
    """The outputs and the Jacobian rows of the examples of a problem, at the point that a run starts from.

    Args:
        shards: the artifacts of `capture` for each split, in the order of their examples.
        problem: the problem.
        n_captured: training examples that the kernel has, of those in the shards; the problem may have more.
    """

    def __init__(self, shards: Mapping[Split, Sequence[Artifact]], problem: Problem, n_captured: int) -> None:
        self._shards = shards
        self._problem = problem
        self._counts: dict[Split, int] = {"train": n_captured, "eval": problem.n_eval}

    def scores(self, split: Split) -> Array:
        """Return the outputs f_0 (n, R) of all examples that the kernel has."""
        scores = np.concatenate([shard.array("scores") for shard in self._shards[split]])
        return scores[: self._counts[split]]

    def linear(self, split: Split, groups: Sequence[str]) -> LinearRows:
        """Return outputs and rows (n, R, p) of all examples, the groups' rows side by side."""
        scores = self.scores(split)
        jacobian = np.concatenate([self._rows(split, group) for group in groups], axis=1)
        return LinearRows(torch.from_numpy(scores), torch.from_numpy(jacobian).view(len(scores), scores.shape[1], -1))

    def mean_diagonal(self, groups: Sequence[str]) -> float:
        """Return trace/M, the unit of lambda, of the kernel of some groups on the training examples.

        Raises:
            SweepError: it is zero.
        """
        blocks = (self._rows("train", group) for group in groups)
        squares = sum(float(np.einsum("ij,ij->", rows, rows, dtype=np.float64)) for rows in blocks)
        if not squares:
            raise SweepError(
                f"lambda in units of trace/M is no number for {'+'.join(groups)}: their kernel is zero, for no output "
                "depends on them before training; leave the layer set out, or set grid.lambdas.scale: absolute"
            )
        # The trace-averaged kernel is the mean over an example's outputs, and has one row for each example.
        size = self._counts["train"] * self._problem.rows_per_example
        return squares / self._problem.outputs_per_example / size

    def _rows(self, split: Split, group: str) -> Array:
        """Return the Jacobian rows of a group for all examples, (rows, p_g)."""
        shards = self._shards[split]
        rows = np.concatenate([shard.array(group) for shard in shards])
        n_rows = len(rows) if split == "eval" else self._counts["train"] * shards[0].array("scores").shape[1]
        return rows[:n_rows]
