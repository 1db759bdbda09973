"""Inputs of a stage `finetune`: lambdas, targets, and the model or its linearization, from earlier stages."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from finetune.data.targets import kernel_outputs
from finetune.data.tokens import TokenizedTexts
from finetune.errors import UnsupportedModelError
from finetune.model.prefix import PrefixCache
from finetune.training.data_parallel import DataParallelModel
from finetune.training.kernel_change import KernelChange
from finetune.training.linearized import LinearizedModel
from finetune.training.linearized_products import LinearizedProducts
from finetune.training.loop import Targets
from finetune.training.losses import as_targets
from finetune.training.origins import Origin, differing_weights, starting_from
from finetune.training.outputs import all_outputs
from finetune.training.smoothness import Smoothness, smoothness
from finetune.training.stacked import StackedModel
from finetune.training.trainable import Displacement, Positions, Split, Trainable
from ntk_dist.jacobian.tracked import TrackedLinear
from orchestrator.stages.context.problem import Problem
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.context.work import Work
from orchestrator.stages.finetune import RunParameters
from orchestrator.stages.finetune.captured_rows import CapturedRows
from orchestrator.store.batched import Array
from orchestrator.store.stage import Reads
from orchestrator.sweep.layer_sets import HEAD

SPLITS: tuple[Split, Split] = ("train", "eval")


class TrainingInputs:
    """The inputs of one training run; each is read when it is first used.

    Args:
        run: the run.
        work: where its inputs are read.
        problem: its regression problem.
        splits: the splits whose examples go through the model.

    Attributes:
        settings: how to train.
        seed: of the order of examples.
        groups: the groups of the kernel.
        trained: those and, where it is trained outside the kernel, the head.
        scorer: the model, at the pretrained point, or at that of another seed.
        weights: the parameters that differ from the scorer's own, see `Origin`.
    """

    def __init__(
        self, run: Reads[RunParameters], work: Work, problem: Problem, splits: Sequence[Split] = SPLITS
    ) -> None:
        parameters, cells = run.parameters, run.parameters.cells
        self.settings = cells.training
        self.seed = cells.seed
        self.groups = cells.groups
        head = work.input(run, "head") if "head" in run.inputs else None
        self.trained = (*self.groups, HEAD) if cells.train_head else self.groups
        self.scorer = work.scorer(parameters.problem.scorer, head, self.trained)
        self.weights: Mapping[Tensor, Tensor] = {}
        self._process_group = work.process_group
        self._batch_tokens = work.batch_tokens(run, parameters.problem.scorer)
        self._parameters = parameters
        self._problem = problem
        self._splits = splits
        self._dataset = work.input(run, "dataset")
        self._captured = CapturedRows({split: work.inputs(run, split) for split in SPLITS}, problem, cells.n_captured)
        self._outputs = parameters.problem.kernel.outputs
        self._counts: dict[Split, int] = {"train": problem.n_train, "eval": problem.n_eval}

    def lambdas(self) -> list[float]:
        """Return the lambdas of the cells, absolute; the spec may give them in units of trace/M."""
        given = list(self._parameters.cells.lambdas)
        if self._parameters.cells.lambda_scale != "trace":
            return given
        unit = self._captured.mean_diagonal(self.groups)
        return [strength * unit for strength in given]

    def targets(self) -> Targets:
        """Return the targets of the outputs, in the model's precision."""
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
        """Return the model itself, for a number of stacked cells."""
        return self.model_of([self.origin()], [0] * n_cells)

    def model_of(self, starts: Sequence[Origin], origins: Sequence[int]) -> StackedModel:
        """Return the model itself for cells that start from one origin each, see `StackedModel`."""
        if self._process_group.size > 1:
            return DataParallelModel(
                self.scorer, self.trained, starts, self._outputs, origins, process_group=self._process_group
            )
        return StackedModel(self.scorer, self.trained, starts, self._outputs, origins)

    def origin(self) -> Origin:
        """Return the origin of cells: the examples, and weights where the scorer was loaded for another seed."""
        with starting_from(self.weights):
            return Origin(self._texts, self.weights, self._prefixes)

    def share(self, other: "TrainingInputs") -> None:
        """Use the scorer that was loaded for another seed, and keep only the weights that differ from it.

        Raises:
            UnsupportedModelError: parameters outside linear modules differ.
        """
        self.weights = differing_weights(other.scorer, self.scorer)
        self.scorer = other.scorer

    def linearization(self, n_cells: int) -> Trainable:
        """Return the linearized model, from the kernel's Jacobian rows or by products with the Jacobian."""
        if self._parameters.linearization == "products":
            return self._by_products(n_cells)
        return self._by_rows(n_cells)

    def _by_products(self, n_cells: int) -> LinearizedProducts:
        initial = {split: torch.from_numpy(self._initial(split)) for split in SPLITS}
        return LinearizedProducts(
            self.scorer, self.groups, self._texts, self._outputs, n_cells, initial=initial, prefixes=self._prefixes
        )

    def _initial(self, split: Split) -> Array:
        """Return the outputs f_0 (n, R): as they were captured, or of a pass where the kernel lacks examples."""
        if split == "eval" or self._parameters.cells.n_captured == self._counts["train"]:
            return self._captured.scores(split)
        outputs = all_outputs(self.model(1), split, [0], at_once=self.settings.batch_size)[0]
        return np.asarray(outputs, dtype=self._captured.scores("eval").dtype)

    @cached_property
    def _texts(self) -> dict[Split, TokenizedTexts]:
        return {split: read_tokens(self._dataset, split, 0, self._counts[split]) for split in self._splits}

    @cached_property
    def _prefixes(self) -> dict[Split, PrefixCache]:
        """Caches of the frozen layers' hidden states; empty without such layers or if they cannot be skipped."""
        frozen = self._parameters.frozen_layers
        if frozen == 0:
            return {}
        try:
            caches = {split: PrefixCache(self.scorer, frozen, self.trained) for split in self._splits}
            for split, cache in caches.items():
                cache.fill(self._texts[split], batch_tokens=self._batch_tokens, process_group=self._process_group)
        except UnsupportedModelError:
            return {}
        return caches

    def _by_rows(self, n_cells: int) -> LinearizedModel:
        rows = {split: self._captured.linear(split, self.groups) for split in SPLITS}
        return LinearizedModel(rows, [linear for group in self.groups for linear in self.scorer.groups[group]], n_cells)

    def kernel_change(self, n_examples: int) -> KernelChange:
        """Return an observer of how the kernel of the first training examples changes in training."""
        with starting_from(self.weights):
            return KernelChange(
                self._scores_of_first(n_examples),
                self.modules(self.groups),
                self.modules(self.trained),
                kind=self._parameters.problem.kernel.kind,
                outputs=self._outputs,
                before_backward=self.scorer.before_backward,
            )

    def smoothness(self, n_examples: int, displacement: Displacement) -> Smoothness:
        """Return the curvature of the first training examples' outputs on the path to the trained weights."""
        passes = self._scores_of_first(n_examples)
        return smoothness(lambda: torch.cat([score() for score in passes]), self.modules(self.trained), displacement)

    def modules(self, groups: Sequence[str]) -> dict[str, list[TrackedLinear]]:
        """Return by group the modules whose parameters are trained."""
        return {group: self.scorer.trained[group] for group in groups}

    def _scores_of_first(self, n_examples: int) -> list[Callable[[], Tensor]]:
        """Return functions that run the model on the first training examples, skipping layers with cached states."""
        return [self.score(positions) for positions in self.scorer.at_once(range(n_examples))]

    def score(self, positions: Positions, split: Split = "train") -> Callable[[], Tensor]:
        """Return a function that runs the model on some examples at once."""
        batch = self._texts[split].batch(positions)
        prefix = self._prefixes.get(split)

        def score() -> Tensor:
            with prefix.reading(positions, batch) if prefix else nullcontext():
                return kernel_outputs(self.scorer.logits(batch), self._outputs)

        return score
