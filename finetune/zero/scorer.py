"""A scorer whose model is divided among the processes of a group, and its exact Jacobian rows."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from finetune.model.architecture import head_linears
from finetune.model.loading import LoadedModel, load_model
from finetune.model.scorer import Scorer, build_scorer, try_out
from finetune.parallel.memory import give_back, keep_large_blocks_apart
from finetune.parallel.weights import (
    has_divided,
    hide_whole_parameters,
    keeping_no_weights,
    largest_module,
    loaded_in_parts,
    make_whole,
    zero_config,
)
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings, ShardingSettings
from finetune.zero.loading import load_in_parts
from finetune.zero.release import keeping_no_modules
from ntk_dist.jacobian.batches import Batch
from ntk_dist.jacobian.row_sums import RowsToCome
from ntk_dist.jacobian.tracked import TrackedLinear


class ShardedScorer:
    """A scorer that fetches the weights of one layer at a time from all processes, and releases them again.

    All processes make the same calls in the same order, each with examples of its own. Nothing but its owners keeps it:
    after the last one has dropped it, `finetune.zero.release.free_models` frees the weights.

    Args:
        scorer: built from a model that was loaded in parts, or from a whole one, which DeepSpeed then has nothing to do
            with; the adapter and head of a divided one become whole on every process.
        dtype: precision of the model.
        offload: see `ShardingSettings`.

    Attributes:
        scorer: the scorer, whose `groups` the rows have.
    """

    def __init__(self, scorer: Scorer, dtype: str, offload: Literal["none", "cpu"] = "none") -> None:
        self.scorer = scorer
        self._logits: Callable[[Batch], Tensor] = scorer.logits
        self._backward: _BackwardAgain | None = None
        if has_divided(scorer.model):
            self._divide(dtype, offload)

    def _divide(self, dtype: str, offload: Literal["none", "cpu"]) -> None:
        import deepspeed

        make_whole([linear.module for linears in self.scorer.trained.values() for linear in linears])
        hide_whole_parameters(self.scorer.model)
        root = _Root(self.scorer.model)
        config = zero_config(dtype, offload=offload, largest=largest_module(self.scorer.model))
        with keeping_no_modules():
            deepspeed.initialize(model=root, config=config)
        self._logits, self._backward = partial(root, self.scorer.logits), _BackwardAgain(root)
        with keeping_no_modules():
            try_out(self.scorer, root)

    @property
    def model(self) -> nn.Module:
        """See `Scorer.model`."""
        model: nn.Module = self.scorer.model
        return model

    @property
    def device(self) -> torch.device:
        """See `Scorer.device`."""
        return self.scorer.device

    @property
    def groups(self) -> dict[str, list[TrackedLinear]]:
        """See `Scorer.groups`."""
        return self.scorer.groups

    @property
    def zero_parts(self) -> dict[str, list[str]]:
        """See `Scorer.zero_parts`."""
        return self.scorer.zero_parts

    @property
    def drawn(self) -> list[str]:
        """See `Scorer.drawn`."""
        return self.scorer.drawn

    def features(self, batch: Batch) -> Tensor:
        """Return the features (B, d) that a probe is fitted to, as `Scorer.features`."""
        return self.scorer.features(batch, self.logits)

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits (B, C), as `Scorer.logits`."""
        if self._backward is None:
            return self._logits(batch)
        with keeping_no_modules():
            return self._logits(batch)

    def before_backward(self, output: int) -> None:
        """Make ready for the backward pass of an output, as `ntk_dist.jacobian.capture.jacobian_rows` asks."""
        if self._backward is not None:
            self._backward.prepare(output)

    def rows(
        self, batch: Batch, outputs: Callable[[Tensor], Tensor], *, row_dtype: torch.dtype | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return scores (B, R) and Jacobian rows (B, R, p_g) by group, as `Scorer.rows`."""
        return self.begin_rows(batch, outputs, row_dtype=row_dtype).wait()

    def begin_rows(
        self, batch: Batch, outputs: Callable[[Tensor], Tensor], *, row_dtype: torch.dtype | None = None
    ) -> RowsToCome:
        """Compute scores (B, R) and Jacobian rows (B, R, p_g) by group, as `Scorer.begin_rows`.

        Args:
            batch: the examples of this process.
            outputs: what is taken of the logits (B, C): the R outputs of the kernel.
            row_dtype: precision of both.
        """
        found = self.scorer.begin_rows(
            batch,
            outputs,
            row_dtype=row_dtype,
            run=self.logits,
            around_layers=nullcontext if self._backward is None else keeping_no_weights,
            before_backward=self.before_backward,
        )
        if self._backward is not None:
            give_back()
        return found


def build_sharded_scorer(
    model: ModelSettings,
    adapter: AdapterSettings,
    head: HeadSettings,
    *,
    sharding: ShardingSettings | None = None,
    **options: Any,
) -> ShardedScorer:
    """Build a scorer as `build_scorer` does, with a model that no process holds whole at any time.

    Args:
        model: the pretrained model.
        adapter: what is adapted.
        head: what gives the outputs.
        sharding: how the processes hold the model; by default they divide it among them.
        options: all that `build_scorer` takes by name.

    Raises:
        FinetuneError: as `build_scorer`.
    """
    sharding = sharding or ShardingSettings(torch.distributed.get_world_size())
    if not sharding.divides:
        return ShardedScorer(build_scorer(model, adapter, head, **options), model.dtype)
    keep_large_blocks_apart()
    load = partial(_load_in_parts, offload=sharding.offload)
    return ShardedScorer(build_scorer(model, adapter, head, load=load, **options), model.dtype, sharding.offload)


def _load_in_parts(
    settings: ModelSettings, *, n_outputs: int, language_model: bool, seed: int, offload: Literal["none", "cpu"]
) -> LoadedModel:
    """Load a model in parts, or draw it so, except for its head, which is whole on every process."""
    wanted: dict[str, Any] = {"n_outputs": n_outputs, "language_model": language_model, "seed": seed}
    if settings.weights == "pretrained":
        return load_in_parts(settings, **wanted, config=zero_config(settings.dtype, offload=offload))
    with loaded_in_parts(settings.dtype):
        loaded = load_model(settings, **wanted)
    make_whole(list(head_linears(loaded.model).values()))
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

    _COUNTS = ("applied_pre_backward_ref_cnt", "ds_grads_remaining")

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._counts: list[tuple[nn.Module, dict[str, int]]] = []

    def prepare(self, output: int) -> None:
        """Make ready for the backward pass of an output, counted from 0."""
        if output == 0:
            self._counts = [
                (module, {name: vars(module)[name] for name in self._COUNTS if name in vars(module)})
                for module in self._root.modules()
            ]
            return
        for module, counts in self._counts:
            vars(module).update(counts)
