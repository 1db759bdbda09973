"""A scorer whose model is sharded over the processes of a group, and its exact Jacobian rows."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from finetune.model.adapted import AdaptedModel, ScorerSettings, adapt
from finetune.model.architecture import head_linears
from finetune.model.loading import LoadedModel, load_model
from finetune.model.scorer import Scorer
from finetune.model.trials import try_out
from finetune.parallel.deepspeed_private import BACKWARD_COUNTS
from finetune.parallel.memory import give_back, keep_large_blocks_apart
from finetune.parallel.weights import (
    hide_unsharded_parameters,
    keeping_no_weights,
    largest_module,
    loaded_sharded,
    unshard,
    zero_config,
)
from finetune.settings import ModelSettings
from finetune.zero.loading import load_sharded
from finetune.zero.release import free_models, keeping_no_modules
from ntk_dist.jacobian.batches import Batch
from ntk_dist.jacobian.row_sums import RowsToCome

Offload = Literal["none", "cpu"]


class ShardedScorer(Scorer):
    """A scorer that fetches the weights of one layer at a time from all processes, and releases them again.

    All processes make the same calls in the same order, each with examples of its own. Nothing but its owners keeps it:
    after the last one has dropped it, `free_dropped` frees the weights.

    Args:
        adapted: a sharded model; its adapter and head become unsharded.
        dtype: precision of the model.
        offload: see `ShardingSettings`.
    """

    is_sharded = True

    def __init__(self, adapted: AdaptedModel, dtype: str, offload: Offload = "none") -> None:
        super().__init__(adapted)
        import deepspeed

        unshard([linear.module for linears in self.trained.values() for linear in linears])
        hide_unsharded_parameters(self.model)
        self._root = _Root(self.model)
        config = zero_config(dtype, offload=offload, largest=largest_module(self.model))
        with keeping_no_modules():
            deepspeed.initialize(model=self._root, config=config)
        self._backward = _BackwardAgain(self._root)

    @property
    def pass_tokens(self) -> None:
        """See `Scorer.pass_tokens`: each pass fetches all weights, so that there are as few as possible."""
        return None

    def begin_rows(
        self, batch: Batch, outputs: Callable[[Tensor], Tensor], *, row_dtype: torch.dtype | None = None
    ) -> RowsToCome:
        """Compute scores (B, R) and Jacobian rows (B, R, p_g) by group of this process's examples.

        Args as those of `Scorer.begin_rows`.
        """
        found = super().begin_rows(batch, outputs, row_dtype=row_dtype)
        give_back()
        return found

    def rows_here(
        self, batch: Batch, outputs: Callable[[Tensor], Tensor], *, row_dtype: torch.dtype | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return scores (B, R) and Jacobian rows (B, R, p_g) by group of this process's examples, where its model is.

        Args as those of `Scorer.begin_rows`.
        """
        found = super().rows_here(batch, outputs, row_dtype=row_dtype)
        give_back()
        return found

    def _run(self, read: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        with keeping_no_modules():
            result: Tensor = self._root(read, batch)
            return result

    def _around_layers(self) -> AbstractContextManager[object]:
        return keeping_no_weights()

    def before_backward(self, output: int) -> None:
        """See `Scorer.before_backward`."""
        self._backward.prepare(output)

    @staticmethod
    def free_dropped() -> None:
        """See `Scorer.free_dropped`; takes about a second."""
        free_models()


def sharded_scorer(settings: ScorerSettings, offload: Offload = "none") -> ShardedScorer:
    """Return a scorer whose model is sharded over the processes of the group, which all make the call.

    Args:
        settings: what it is.
        offload: see `ShardingSettings`.

    Raises:
        FinetuneError, NtkError: as `finetune.scorers.build_scorer`.
    """
    keep_large_blocks_apart()
    loaded = settings.loaded_by(partial(_load_sharded, offload=offload))
    scorer = ShardedScorer(adapt(loaded, settings), settings.model.dtype, offload)
    try_out(scorer)
    return scorer


def _load_sharded(
    settings: ModelSettings, *, n_outputs: int, language_model: bool, seed: int, offload: Offload
) -> LoadedModel:
    """Load a sharded model, or draw it so; its head is unsharded."""
    wanted: dict[str, Any] = {"n_outputs": n_outputs, "language_model": language_model, "seed": seed}
    if settings.weights == "pretrained":
        return load_sharded(settings, **wanted, config=zero_config(settings.dtype, offload=offload))
    with loaded_sharded(settings.dtype):
        loaded = load_model(settings, **wanted)
    unshard(list(head_linears(loaded.model).values()))
    return loaded


class _Root(nn.Module):
    """The module that DeepSpeed treats as the model: one call of it is one pass, for any function that reads it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, read: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        with keeping_no_weights():
            return read(batch)


class _BackwardAgain:
    """Lets a graph be run backward once for each output.

    DeepSpeed counts the backward passes that a module still has to make, fetches its weights for as many, and releases
    them after the last. Before every further backward pass the counts are reset to their values after the forward pass.
    """

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._counts: list[tuple[nn.Module, dict[str, int]]] = []

    def prepare(self, output: int) -> None:
        """Make ready for the backward pass of an output, counted from 0."""
        if output == 0:
            self._counts = [
                (module, {name: vars(module)[name] for name in BACKWARD_COUNTS if name in vars(module)})
                for module in self._root.modules()
            ]
            return
        for module, counts in self._counts:
            vars(module).update(counts)
