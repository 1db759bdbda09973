"""A pretrained model with adapter and head, as a function from a batch of tokens to logits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from finetune.errors import HeadError, ModelRunError, UnsupportedModelError
from finetune.libraries.faults import running
from finetune.model.adapter import (
    GroupParts,
    check_group_names,
    dense_parts,
    insert_lora,
    is_zero,
    lora_parts,
    without_gradient,
)
from finetune.model.architecture import (
    HEAD_GROUP,
    Target,
    base_model,
    final_linear,
    find_layers,
    find_targets,
    is_decoder,
)
from finetune.model.head import draw_missing, head_parts, prepare_head
from finetune.model.host_answers import answered
from finetune.model.label_words import WordIds, at_mask, check_word_head, score_words_alone, word_head, word_ids
from finetune.model.loading import LoadedModel, load_model
from finetune.model.model_state import undone
from finetune.model.precision import KeepDouble
from finetune.model.trials import Call, at_once, find_example_axes
from finetune.parallel.weights import has_divided
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.device.transfers import sent
from ntk_dist.jacobian.batches import Batch, pad
from ntk_dist.jacobian.capture import begin_rows
from ntk_dist.jacobian.row_sums import BatchRows, RowsToCome
from ntk_dist.jacobian.tracked import TrackedLinear, check_alone, check_groups, check_products


class Scorer:
    """A model in eval mode, dropout off, with the modules whose parameters are tracked.

    Batches may be anywhere; they are taken to the model's device, where logits stay. What a model in half precision
    gives is handed on in single precision: differences of logits, losses and sums lose nothing more.

    Attributes:
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

    def __init__(
        self,
        model: PreTrainedModel,
        final: nn.Linear,
        parts: Mapping[str, GroupParts],
        drawn: list[str],
        *,
        words: WordIds | None = None,
        alone: bool = False,
    ) -> None:
        self.model = model.eval()
        self.alone = alone
        # passes are independent, and layers that run again would read their own entries in a cache
        model.config.use_cache = model.config.get_text_config().use_cache = False
        self.final = final
        self.words = words
        self.groups: dict[str, list[TrackedLinear]] = {name: group.tracked for name, group in parts.items()}
        self.trained = {name: group.trained for name, group in parts.items()}
        self.zero_parts = {name: group.zero for name, group in parts.items() if group.zero}
        self.drawn = drawn
        self.example_axes: Mapping[nn.Module, int | None] = {}
        self.layers: Sequence[nn.Module] = ()
        self._in_a_pass = False
        self._unused: set[nn.Module] = set()
        self._last_token = is_decoder(model)
        check_groups(self.groups)

    @property
    def device(self) -> torch.device:
        """The device on which the model computes."""
        return self.final.weight.device

    def at_once(self, positions: Sequence[int] | NDArray[np.integer]) -> list[NDArray[np.int64]]:
        """Return which of some examples go through the model together: all of them, or each alone."""
        chosen = np.asarray(positions, dtype=np.int64)
        return list(chosen[:, None]) if self.alone else [chosen]

    def logits(self, batch: Batch) -> Tensor:
        """Logits (B, C), differentiable where the caller's hooks make them so.

        Raises:
            PromptError: a masked language model is read, and an example has no mask, or several.
        """
        if self.alone and len(batch) > 1:
            return torch.cat([self.logits(example) for example in batch.apart()])
        there = batch.to(self.device)
        with self._pass(), self._exactly(), answered(batch, there):
            if self.words is None and self._last_token:
                return _at_least_single(self.final(self._last_hidden(there)))
            logits = _at_least_single(self._whole(there))
            return logits if self.words is None else logits[self._read_at(batch)]

    def vocabulary_logits(self, batch: Batch) -> Tensor:
        """Logits (B, T, vocabulary) of all words at all tokens, as the language model itself gives them."""
        there = batch.to(self.device)
        with self._pass(), self._exactly(), answered(batch, there):
            return self._whole(there)

    def rows(
        self, batch: Batch, outputs: Callable[[Tensor], Tensor], *, row_dtype: torch.dtype | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return scores (B, R) and Jacobian rows (B, R, p_g) by group on the CPU; see `begin_rows`."""
        return self.begin_rows(batch, outputs, row_dtype=row_dtype).wait()

    def begin_rows(
        self,
        batch: Batch,
        outputs: Callable[[Tensor], Tensor],
        *,
        row_dtype: torch.dtype | None = None,
        run: Callable[[Batch], Tensor] | None = None,
        around_layers: Callable[[], AbstractContextManager[object]] = nullcontext,
        before_backward: Callable[[int], None] | None = None,
    ) -> RowsToCome:
        """Compute scores (B, R) and Jacobian rows (B, R, p_g) by group, as `ntk_dist.jacobian.capture.begin_rows`.

        They go to the CPU, which does not wait for them: a GPU begins with the next batch meanwhile.

        Args:
            batch: the examples.
            outputs: what is taken of the logits (B, C): the R outputs of the kernel.
            row_dtype: precision of both; None takes the model's, and single precision for one in half precision.
            run: runs the model; None runs `logits`.
            around_layers: gives the context in which `run` runs it, for layers that run again.
            before_backward: see `ntk_dist.jacobian.capture.begin_rows`.
        """

        @contextmanager
        def around() -> Iterator[None]:
            with self._exactly(), around_layers():
                yield

        def begun(part: Batch) -> BatchRows:
            with self._pass():
                return begin_rows(
                    lambda: outputs((run or self.logits)(part)),
                    self.groups,
                    row_dtype=row_dtype,
                    layers=self.layers,
                    around_layers=around,
                    before_backward=before_backward,
                    unused=self._unused,
                )

        return RowsToCome(map(begun, batch.apart() if self.alone else [batch]))

    @torch.no_grad()
    def features(self, batch: Batch, run: Callable[[Batch], object] | None = None) -> Tensor:
        """Inputs (B, d) of the last linear layer, on the CPU: what a probe is fitted to.

        Args:
            batch: the examples.
            run: runs the model; None runs `logits`.
        """
        if self.alone and len(batch) > 1:
            return torch.cat([self.features(example, run) for example in batch.apart()])
        seen: list[Tensor] = []
        handle = self.final.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        try:
            (run or self.logits)(batch)
        finally:
            handle.remove()
        features = _at_least_single(seen[0])
        return (features if self.words is None else features[self._read_at(batch)]).cpu()

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


def build_scorer(
    model: ModelSettings,
    adapter: AdapterSettings,
    head: HeadSettings,
    *,
    n_outputs: int,
    adapter_seed: int,
    head_seed: int,
    head_weights: Mapping[str, NDArray[np.floating]] | None = None,
    groups: Sequence[str] | None = None,
    load: Callable[..., LoadedModel] = load_model,
) -> Scorer:
    """Load the model and give it adapter and head.

    Every draw depends on its seed and the parameter's own name: neither the other groups nor the precision
    change it.

    Args:
        model: the pretrained model.
        adapter: what is adapted.
        head: what gives the outputs.
        n_outputs: number of outputs C.
        adapter_seed: seed of LoRA's matrices.
        head_seed: seed of the head and of all parameters that the checkpoint lacks.
        head_weights: "weight" (C, d) and "bias" (C,) of a ridge or logistic probe; without them such a head
            is a random one, whose `features` the probe is fitted to.
        groups: the groups to track; None tracks all.
        load: loads the model; `finetune.zero` loads it in parts.

    Raises:
        FinetuneError: a named subclass says whether model, head, target or group is wrong.
        NonFiniteError: a weight of the checkpoint is NaN or infinite.
        TiedWeightsError: a parameter belongs to two groups, or to a module outside of them, too.
        NotRecordedError: as `ntk_dist.jacobian.tracked.check_products`.
    """
    if head_weights is not None and head.kind not in ("ridge", "logistic"):
        raise HeadError(f"a {head.kind} head takes no probe weights; use ridge or logistic")
    language_model = head.kind == "label_words"
    loaded = load(model, n_outputs=n_outputs, language_model=language_model, seed=head_seed)
    network = loaded.model
    targets = find_targets(network, adapter.targets)
    if not has_divided(network):
        check_products(TrackedLinear(target.module, target.path) for target in targets)
    words = word_ids(model, head.words, n_outputs) if language_model else None
    if words is not None:
        check_word_head(network, loaded.missing, model.path)
        drawn, final = draw_missing(loaded, head_seed), word_head(network, words.words)
    else:
        drawn = prepare_head(loaded, head, n_outputs=n_outputs, seed=head_seed, weights=head_weights)
        final = final_linear(network, n_outputs)[1]
    parts = _group_parts(network, adapter, targets, adapter_seed)
    if is_zero(final):
        parts = {name: without_gradient(group) for name, group in parts.items()}
    if head.in_kernel and words is None:
        parts[HEAD_GROUP] = head_parts(network, n_outputs)
    wanted = list(parts) if groups is None else groups
    check_group_names(wanted, parts)
    kept = {name: parts[name] for name in parts if name in wanted}
    scorer = Scorer(network, final, kept, drawn, words=words, alone=model.alone)
    trained = [linear for group in kept.values() for linear in group.trained]
    check_alone(trained, network)
    if model.checkpointing:
        scorer.layers = list(find_layers(network))
    if not has_divided(network):
        try_out(scorer)
    return scorer


def _group_parts(
    model: PreTrainedModel, adapter: AdapterSettings, targets: Sequence[Target], seed: int
) -> dict[str, GroupParts]:
    if adapter.kind == "none":
        return {target.group: dense_parts(target) for target in targets}
    insert_lora(model, adapter, targets, seed)
    return {target.group: lora_parts(model, target) for target in targets}


def try_out(scorer: Scorer, run: Call = at_once) -> None:
    """Set the attributes of a scorer that need passes through its model, and leave the model unchanged.

    Args:
        scorer: with all adapters and its head.
        run: calls a function that runs the model on a batch, where that takes more than the call; all processes of a
            divided model do it alike.

    Raises:
        UnsupportedModelError: as `take_words`.
    """
    with undone(scorer.model):
        if scorer.words is not None:
            take_words(scorer, run)
        if not scorer.alone:
            find_example_axes(scorer, run)


def take_words(scorer: Scorer, run: Call = at_once) -> None:
    """Let a scorer compute only the logits of its label words, after one comparison with the model's own logits.

    Args:
        scorer: of label words.
        run: see `try_out`.

    Raises:
        UnsupportedModelError: the logit of a word depends on more than its row of the output embedding.
    """
    assert scorer.words is not None
    words, mask = scorer.words.words, scorer.words.mask
    batch = pad([np.array(words if mask is None else [*words, mask])], pad_id=0).to(scorer.device)
    with torch.no_grad():
        own = run(scorer.vocabulary_logits, batch)[:, -1].index_select(1, torch.tensor(words).to(scorer.device))
        score_words_alone(scorer.model, scorer.final)
        try:
            scored = run(scorer.logits, batch)
        except ModelRunError as error:
            # the same tokens went through, with the logits of all words
            raise _changes_logits(scorer) from error
    # in half precision the model rounds its logits a few times more
    rounding = 4 * torch.finfo(own.dtype).eps
    relative, absolute = max(1e-3, rounding), max(1e-5, rounding * float(own.abs().max()))
    if scored.shape != own.shape or not torch.allclose(scored, own.to(scored.dtype), rtol=relative, atol=absolute):
        raise _changes_logits(scorer)


def _changes_logits(scorer: Scorer) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{type(scorer.model).__name__} changes its logits after the output embedding, by a bias of its own or "
        "otherwise, in a way that is not known here, so that label words cannot be scored; use a random or ridge head"
    )


def _at_least_single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _last_tokens(batch: Batch) -> tuple[Tensor, Tensor]:
    # by the mask, because a padding id may also be a real token
    return torch.arange(len(batch), device=batch.input_ids.device), batch.last_positions


def _inputs(batch: Batch) -> dict[str, Tensor]:
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    return inputs
