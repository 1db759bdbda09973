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
from finetune.training.linearized_products import LinearizedProducts
from finetune.training.loop import Targets
from finetune.training.losses import as_targets
from finetune.training.settings import TrainingSettings
from finetune.training.smoothness import Smoothness, smoothness
from finetune.training.stacked import StackedModel
from finetune.training.trainable import Displacement, Split, Trainable
from ntk_dist.batches import Batch
from orchestrator.layer_sets import HEAD
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
        groups: the groups of the kernel.
        trained: those and, where it is trained outside the kernel, the head.
        scorer: the model, at the pretrained point.
    """

    def __init__(self, stage: Stage, work: Work, problem: Problem) -> None:
        parameters = stage.parameters
        self.settings = TrainingSettings(**parameters["training"])
        self.groups: list[str] = parameters["groups"]
        head = work.input(stage, "head") if "head" in stage.inputs else None
        self.trained = [*self.groups, HEAD] if parameters.get("train_head") else self.groups
        self.scorer: Scorer = work.scorer(parameters["problem"]["scorer"], head, self.trained)
        self._parameters = parameters
        self._problem = problem
        self._dataset = work.input(stage, "dataset")
        self._shards = {split: work.inputs(stage, split) for split in SPLITS}
        self._outputs = parameters["problem"]["kernel"]["outputs"]
        self._counts: dict[Split, int] = {"train": problem.n_train, "eval": problem.n_eval}

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

    def model(self, n_cells: int) -> StackedModel:
        """Return the model itself, for so many cells side by side."""
        texts = self._texts()
        prefixes = self._prefixes(texts)
        return StackedModel(self.scorer, self.trained, texts, self._outputs, n_cells, prefixes=prefixes)

    def linearization(self, n_cells: int) -> Trainable:
        """Return the linearized model, by the rows that the kernel was made of or by products with the Jacobian."""
        if self._parameters.get("linearization") == "products":
            return self._by_products(n_cells)
        return self._by_rows(n_cells)

    def _by_products(self, n_cells: int) -> LinearizedProducts:
        texts = self._texts()
        initial = {split: torch.from_numpy(self._scores(split)) for split in SPLITS}
        return LinearizedProducts(
            self.scorer, self.groups, texts, self._outputs, n_cells, initial=initial, prefixes=self._prefixes(texts)
        )

    def _texts(self) -> dict[Split, TokenizedTexts]:
        return {split: read_tokens(self._dataset, split, 0, self._counts[split]) for split in SPLITS}

    def _prefixes(self, texts: Mapping[Split, TokenizedTexts]) -> dict[Split, PrefixCache]:
        """Return what leaves the frozen layers; nothing where there are none, or the architecture cannot skip them."""
        frozen = self._parameters["frozen_layers"]
        if frozen == 0:
            return {}
        batch_tokens = self._parameters["problem"]["scorer"]["batch_tokens"]
        try:
            caches = {split: PrefixCache(self.scorer, frozen, self.trained) for split in texts}
            for split, cache in caches.items():
                cache.fill(texts[split], batch_tokens=batch_tokens)
        except UnsupportedModelError:
            return {}
        return caches

    def _by_rows(self, n_cells: int) -> LinearizedModel:
        rows = {split: self._linear_rows(split) for split in SPLITS}
        return LinearizedModel(rows, [linear for group in self.groups for linear in self.scorer.groups[group]], n_cells)

    def kernel_change(self, n_examples: int) -> KernelChange:
        """Return what follows the kernel of the first training examples while it moves."""
        return KernelChange(self.scorer, self.groups, self._first(n_examples), self._outputs, trained=self.trained)

    def smoothness(self, n_examples: int, displacement: Displacement) -> Smoothness:
        """Return how curved the outputs of the first training examples are on the way to trained weights."""
        return smoothness(self.scorer, self.trained, self._first(n_examples), self._outputs, displacement)

    def _first(self, n_examples: int) -> Batch:
        return read_tokens(self._dataset, "train", 0, n_examples).batch(range(n_examples))

    def _scores(self, split: Split) -> Array:
        """Return the outputs f_0 (n, R) of all examples of the problem."""
        scores = np.concatenate([np.array(shard.array("scores")) for shard in self._shards[split]])
        return scores[: self._counts[split]]

    def _linear_rows(self, split: Split) -> LinearRows:
        scores = self._scores(split)
        jacobian = np.concatenate([self._rows(split, group) for group in self.groups], axis=1)
        return LinearRows(torch.from_numpy(scores), torch.from_numpy(jacobian).view(len(scores), scores.shape[1], -1))

    def _rows(self, split: Split, group: str) -> Array:
        """Return the Jacobian rows of a group, of all examples of the problem, (rows, p_g)."""
        shards: Sequence[Artifact] = self._shards[split]
        rows = np.concatenate([np.array(shard.array(group)) for shard in shards])
        n_rows = len(rows) if split == "eval" else self._problem.n_train * shards[0].array("scores").shape[1]
        return rows[:n_rows]
