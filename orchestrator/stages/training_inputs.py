"""What a stage `finetune` trains on: lambdas, targets, and the model or its linearization, from the stages below."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from finetune.errors import UnsupportedModelError
from finetune.prefix import PrefixCache
from finetune.tokens import TokenizedTexts
from finetune.training.kernel_change import KernelChange
from finetune.training.linearized import LinearizedModel, LinearRows
from finetune.training.loop import Targets
from finetune.training.losses import as_targets
from finetune.training.settings import TrainingSettings
from finetune.training.smoothness import Smoothness, smoothness
from finetune.training.stacked import StackedModel
from finetune.training.trainable import Displacement, Split
from ntk_dist.batches import Batch
from orchestrator.stage import Stage
from orchestrator.stages.problem import Problem
from orchestrator.stages.tokenized import read_tokens
from orchestrator.stages.work import Work
from orchestrator.store.arrays import Array
from orchestrator.store.artifacts import Artifact

if TYPE_CHECKING:
    from finetune.scorer import Scorer

SPLITS: tuple[Split, Split] = ("train", "eval")


class TrainingInputs:
    """The inputs of one stage, read as they are asked for.

    Attributes:
        settings: how to train.
        scorer: the model, at the pretrained point.
    """

    def __init__(self, stage: Stage, work: Work, problem: Problem) -> None:
        parameters = stage.parameters
        self.settings = TrainingSettings(**parameters["training"])
        self.groups: list[str] = parameters["groups"]
        head = work.input(stage, "head") if "head" in stage.inputs else None
        self.scorer: Scorer = work.scorer(parameters["problem"]["scorer"], head, self.groups)
        self._parameters = parameters
        self._problem = problem
        self._dataset = work.input(stage, "dataset")
        self._shards = {split: work.inputs(stage, split) for split in SPLITS}
        self._outputs = parameters["problem"]["kernel"]["outputs"]

    def lambdas(self) -> list[float]:
        """Return the lambdas of the cells, absolute; the spec may give them in units of trace/M."""
        given = [float(strength) for strength in self._parameters["lambdas"]]
        if self._parameters["lambda_scale"] != "trace":
            return given
        blocks = (self._rows("train", group) for group in self.groups)
        squares = sum(float(np.einsum("ij,ij->", rows, rows, dtype=np.float64)) for rows in blocks)
        # The trace-averaged kernel is the mean over an example's outputs, and has a row for them all.
        unit = squares / self._problem.outputs_per_example / self._problem.size
        return [strength * unit for strength in given]

    def targets(self) -> Targets:
        """Return what the outputs are compared with, in the model's precision."""
        problem, dtype = self._problem, self.scorer.final.weight.dtype
        train, evaluation = (
            as_targets(
                self.settings.loss,
                torch.from_numpy(coded.reshape(len(labels), -1)).to(dtype),
                torch.from_numpy(np.array(labels)),
            )
            for coded, labels in ((problem.targets, problem.labels), (problem.eval_targets, problem.eval_labels))
        )
        return Targets(train, evaluation)

    def model(self, n_cells: int, splits: Sequence[Split] = SPLITS) -> StackedModel:
        """Return the model itself, for so many cells side by side and the examples of some splits."""
        counts = {"train": self._problem.n_train, "eval": self._problem.n_eval}
        texts = {split: read_tokens(self._dataset, split, 0, counts[split]) for split in splits}
        prefixes = self._prefixes(texts)
        return StackedModel(self.scorer, self.groups, texts, self._outputs, n_cells, prefixes=prefixes)

    def _prefixes(self, texts: Mapping[Split, TokenizedTexts]) -> dict[Split, PrefixCache]:
        """Return what leaves the frozen layers; nothing where there are none, or the architecture cannot skip them."""
        frozen = self._parameters["frozen_layers"]
        if frozen == 0:
            return {}
        batch_tokens = self._parameters["problem"]["scorer"]["batch_tokens"]
        try:
            caches = {split: PrefixCache(self.scorer, frozen, self.groups) for split in texts}
            for split, cache in caches.items():
                cache.fill(texts[split], batch_tokens=batch_tokens)
        except UnsupportedModelError:
            return {}
        return caches

    def linearization(self, n_cells: int) -> LinearizedModel:
        """Return the linearized model, of the rows that the kernel was made of."""
        counts = {"train": self._problem.n_train, "eval": self._problem.n_eval}
        rows = {split: self._linear_rows(split, counts[split]) for split in SPLITS}
        return LinearizedModel(rows, [linear for group in self.groups for linear in self.scorer.groups[group]], n_cells)

    def kernel_change(self, n_examples: int) -> KernelChange:
        """Return what follows the kernel of the first training examples while it moves."""
        return KernelChange(self.scorer, self.groups, self._first(n_examples), self._outputs)

    def smoothness(self, n_examples: int, displacement: Displacement) -> Smoothness:
        """Return how curved the outputs of the first training examples are on the way to trained weights."""
        return smoothness(self.scorer, self.groups, self._first(n_examples), self._outputs, displacement)

    def _first(self, n_examples: int) -> Batch:
        return read_tokens(self._dataset, "train", 0, n_examples).batch(range(n_examples))

    def _linear_rows(self, split: Split, n_examples: int) -> LinearRows:
        scores = np.concatenate([np.array(shard.array("scores")) for shard in self._shards[split]])[:n_examples]
        jacobian = np.concatenate([self._rows(split, group) for group in self.groups], axis=1)
        return LinearRows(torch.from_numpy(scores), torch.from_numpy(jacobian).view(len(scores), scores.shape[1], -1))

    def _rows(self, split: Split, group: str) -> Array:
        """Return the Jacobian rows of a group, of all examples of the problem, (rows, p_g)."""
        shards: Sequence[Artifact] = self._shards[split]
        rows = np.concatenate([np.array(shard.array(group)) for shard in shards])
        n_rows = len(rows) if split == "eval" else self._problem.n_train * shards[0].array("scores").shape[1]
        return rows[:n_rows]
