"""A pretrained model with adapter and head, as a function from a batch of tokens to logits and Jacobian rows.

`Scorer` holds what every scorer does. Its two classes differ in where the weights are while the model runs:
`UnshardedScorer` has all of them in its process, `finetune.zero.scorer.ShardedScorer` a part of each.
`finetune.scorers.build_scorer` chooses between them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.errors import ModelRunError
from finetune.libraries.faults import running
from finetune.model.adapted import AdaptedModel, ScorerSettings, adapt
from finetune.model.architecture import base_model, is_decoder
from finetune.model.host_answers import answered
from finetune.model.label_words import at_mask
from finetune.model.loading import LoadedModel, load_model
from finetune.model.model_state import undone
from finetune.model.precision import KeepDouble
from finetune.model.trials import try_out
from ntk_dist.device.transfers import sent
from ntk_dist.jacobian.batches import Batch
from ntk_dist.jacobian.capture import begin_rows
from ntk_dist.jacobian.row_sums import BatchRows, RowsToCome, joined
from ntk_dist.jacobian.tracked import TrackedLinear

_PASS_TOKENS = 64
"""On a processor: what a pass of a small model takes beside its products is that of a few tens of tokens."""

_PASS_TOKENS_ON_A_GPU = 512
"""On a GPU kernels have to be started one by one, and few tokens do not fill it."""


class Scorer(ABC):
    """A model in eval mode, dropout off, with the modules whose parameters are tracked.

    Batches may be anywhere; they are taken to the model's device, where logits stay. What a model in half precision
    gives is handed on in single precision: differences of logits, losses and sums lose nothing more.

    Args:
        adapted: the model with adapter and head.

    Attributes:
        is_sharded: whether every process has only a part of each weight; then all processes make the same calls in the
            same order, each with examples of its own, and the model cannot be differentiated twice.
        model: the transformers model, adapters inside.
        final: the linear layer whose output are the logits.
        words: the label words that are scored; None for a head of its own.
        groups: tracked modules by group; a group whose gradient is always zero has none.
        trained: by group all of its modules, which fine-tuning changes: also those whose gradient is zero at first.
        zero_parts: by group, the parts whose gradient is always zero and which are skipped: LoRA's A where B
            is zero, B where A is zero, everything below a head of zeros.
        drawn: names of the parameters that were drawn because no checkpoint gave them.
        example_axes: by linear module the axis of its input on which examples stand, see
            `ntk_dist.jacobian.example_axes`.
        layers: those that `rows` runs again instead of keeping their activations; none keeps all activations.
        alone: whether each example goes through the model alone, which is in its state after loading each time.
    """

    is_sharded: ClassVar[bool]

    def __init__(self, adapted: AdaptedModel) -> None:
        model = adapted.model
        self.model = model.eval()
        self.alone = adapted.alone
        # passes are independent, and layers that run again would read their own entries in a cache
        model.config.use_cache = model.config.get_text_config().use_cache = False
        self.final = adapted.final
        self.words = adapted.words
        self.groups: dict[str, list[TrackedLinear]] = {name: group.tracked for name, group in adapted.parts.items()}
        self.trained = {name: group.trained for name, group in adapted.parts.items()}
        self.zero_parts = {name: group.zero for name, group in adapted.parts.items() if group.zero}
        self.drawn = adapted.drawn
        self.example_axes: Mapping[nn.Module, int | None] = {}
        self.layers = adapted.layers
        self._in_a_pass = False
        self._unused: set[nn.Module] = set()
        self._last_token = is_decoder(model)

    @abstractmethod
    def _run(self, read: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        """Return what a function that runs the model on a batch returns, with the weights at hand."""

    @abstractmethod
    def _around_layers(self) -> AbstractContextManager[object]:
        """Return the context in which layers run again for the backward pass."""

    @abstractmethod
    def before_backward(self, output: int) -> None:
        """Make ready for the backward pass of an output, counted from 0: see `ntk_dist.jacobian.capture.begin_rows`."""

    @staticmethod
    @abstractmethod
    def free_dropped() -> None:
        """Free the memory of scorers of this class that nothing refers to any more."""

    @property
    def device(self) -> torch.device:
        """The device on which the model computes."""
        return self.final.weight.device

    @property
    def pass_tokens(self) -> int | None:
        """What one more pass costs, in tokens, see `ntk_dist.jacobian.batches.length_buckets`.

        It is by the kind of device, not by a measurement, so that batches and their numbers stay the same.
        """
        return _PASS_TOKENS if self.device.type == "cpu" else _PASS_TOKENS_ON_A_GPU

    def at_once(self, positions: Sequence[int] | NDArray[np.integer]) -> list[NDArray[np.int64]]:
        """Return which of some examples go through the model together: all of them, or each alone."""
        chosen = np.asarray(positions, dtype=np.int64)
        return list(chosen[:, None]) if self.alone else [chosen]

    def logits(self, batch: Batch) -> Tensor:
        """Return logits (B, C), differentiable where the caller's hooks make them so.

        Raises:
            PromptError: a masked language model is read, and an example has no mask, or several.
        """
        return self._run(self._logits, batch)

    def vocabulary_logits(self, batch: Batch) -> Tensor:
        """Return logits (B, T, vocabulary) of all words at all tokens, as the language model itself gives them."""
        return self._run(self._vocabulary_logits, batch)

    def rows(
        self, batch: Batch, outputs: Callable[[Tensor], Tensor], *, row_dtype: torch.dtype | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return scores (B, R) and Jacobian rows (B, R, p_g) by group on the CPU; see `begin_rows`."""
        return self.begin_rows(batch, outputs, row_dtype=row_dtype).wait()

    def begin_rows(
        self, batch: Batch, outputs: Callable[[Tensor], Tensor], *, row_dtype: torch.dtype | None = None
    ) -> RowsToCome:
        """Compute scores (B, R) and Jacobian rows (B, R, p_g) by group, as `ntk_dist.jacobian.capture.begin_rows`.

        They go to the CPU, which does not wait for them: a GPU begins with the next batch meanwhile.

        Args:
            batch: the examples.
            outputs: what is taken of the logits (B, C): the R outputs of the kernel.
            row_dtype: precision of both; None takes the model's, and single precision for one in half precision.
        """
        return RowsToCome(self._rows_of_parts(batch, outputs, row_dtype))

    def rows_here(
        self, batch: Batch, outputs: Callable[[Tensor], Tensor], *, row_dtype: torch.dtype | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return scores (B, R) and Jacobian rows (B, R, p_g) by group on the model's device; see `begin_rows`."""
        return joined([part.here() for part in self._rows_of_parts(batch, outputs, row_dtype)])

    def _rows_of_parts(
        self, batch: Batch, outputs: Callable[[Tensor], Tensor], row_dtype: torch.dtype | None
    ) -> Iterator[BatchRows]:
        @contextmanager
        def around() -> Iterator[None]:
            with self._exactly(), self._around_layers():
                yield

        def begun(part: Batch) -> BatchRows:
            with self._pass():
                return begin_rows(
                    lambda: outputs(self.logits(part)),
                    self.groups,
                    row_dtype=row_dtype,
                    layers=self.layers,
                    around_layers=around,
                    before_backward=self.before_backward,
                    unused=self._unused,
                )

        return map(begun, batch.apart() if self.alone else [batch])

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """Return the inputs (B, d) of the last linear layer, on the CPU: what a probe is fitted to."""
        if self.alone and len(batch) > 1:
            return torch.cat([self.features(example) for example in batch.apart()])
        seen: list[Tensor] = []
        handle = self.final.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        try:
            self.logits(batch)
        finally:
            handle.remove()
        features = _at_least_single(seen[0])
        return (features if self.words is None else features[self._read_at(batch)]).cpu()

    def _logits(self, batch: Batch) -> Tensor:
        if self.alone and len(batch) > 1:
            return torch.cat([self._logits(example) for example in batch.apart()])
        there = batch.to(self.device)
        with self._pass(), self._exactly(), answered(batch, there):
            if self.words is None and self._last_token:
                return _at_least_single(self.final(self._last_hidden(there)))
            logits = _at_least_single(self._whole(there))
            if self.words is not None:
                return logits[self._read_at(batch)]
            return _by_example(logits, (len(batch), self.final.out_features))

    def _vocabulary_logits(self, batch: Batch) -> Tensor:
        there = batch.to(self.device)
        with self._pass(), self._exactly(), answered(batch, there):
            return self._whole(there)

    @contextmanager
    def _pass(self) -> Iterator[None]:
        """Let the model run inside this context; where examples go alone, undo its own changes at the end."""
        outermost = self.alone and not self._in_a_pass
        with running(type(self.model).__name__), undone(self.model) if outermost else nullcontext():
            self._in_a_pass = self.alone
            try:
                yield
            finally:
                self._in_a_pass = self.alone and not outermost

    def _exactly(self) -> AbstractContextManager[object]:
        # the mode looks at every operation, which only a float64 model has a use for
        return KeepDouble() if self.final.weight.dtype == torch.float64 else nullcontext()

    def _whole(self, batch: Batch) -> Tensor:
        without_cache = {"use_cache": False} if self._last_token else {}
        logits: Tensor = self.model(**_inputs(batch), **without_cache).logits
        return logits

    def _last_hidden(self, batch: Batch) -> Tensor:
        hidden: Tensor = base_model(self.model)(**_inputs(batch), use_cache=False).last_hidden_state
        return hidden[_last_tokens(batch)]

    def _read_at(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the index (B,), (B,) of the tokens at which label words are read, on the model's device."""
        assert self.words is not None
        examples, places = _last_tokens(batch) if self.words.mask is None else at_mask(batch, self.words.mask)
        return sent(examples, self.device), sent(places, self.device)


class UnshardedScorer(Scorer):
    """A scorer whose process has all weights of its model."""

    is_sharded = False

    def _run(self, read: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        return read(batch)

    def _around_layers(self) -> AbstractContextManager[object]:
        return nullcontext()

    def before_backward(self, output: int) -> None:
        """See `Scorer.before_backward`: there is nothing to do."""

    @staticmethod
    def free_dropped() -> None:
        """See `Scorer.free_dropped`: Python frees them with the last reference."""


def unsharded_scorer(settings: ScorerSettings, loaded: LoadedModel | None = None) -> UnshardedScorer:
    """Return a scorer whose process has all weights of its model.

    Args:
        settings: what it is.
        loaded: the model, where it is there already.

    Raises:
        FinetuneError, NtkError: as `finetune.scorers.build_scorer`.
    """
    scorer = UnshardedScorer(adapt(loaded or settings.loaded_by(load_model), settings))
    try_out(scorer)
    return scorer


def _at_least_single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _by_example(logits: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return logits (B, C) that may lack axes of length 1, or have more of them: code of a checkpoint may squeeze them.

    Raises:
        ModelRunError: they have another shape.
    """
    if tuple(logits.shape) == shape:
        return logits
    if [size for size in logits.shape if size > 1] != [size for size in shape if size > 1]:
        raise ModelRunError(
            f"the model returns logits of shape {tuple(logits.shape)} for {shape[0]} examples, instead of "
            f"{shape[1]} for each, {shape}; change its code, or use another model"
        )
    return logits.reshape(shape)


def _last_tokens(batch: Batch) -> tuple[Tensor, Tensor]:
    # by the mask, because a padding id may also be a real token
    return torch.arange(len(batch), device=batch.input_ids.device), batch.last_positions


def _inputs(batch: Batch) -> dict[str, Tensor]:
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    return inputs
