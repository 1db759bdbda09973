"""Hidden states that leave the frozen layers: computed once, read at every step of a fine-tuning.

Layers below the lowest trained one give the same states at every epoch, for every lambda and seed. While states are
read, each frozen layer returns the kept ones instead of running. All else of the model runs as it is, since later
layers need its masks and positions; MiniLM's embeddings take a hundredth of the time of a layer.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.data.tokens import TokenizedTexts
from finetune.errors import FinetuneError, TargetError, UnsupportedModelError
from finetune.model.adapter import check_group_names
from finetune.model.architecture import find_layers, position_bias
from finetune.model.scorer import Scorer
from finetune.parallel.exchange import join
from finetune.parallel.process_group import ProcessGroup
from ntk_dist.jacobian.batches import Batch, length_buckets
from ntk_dist.jacobian.forwards import replaced_forwards

Positions = Sequence[int] | NDArray[np.integer]

_ALONE = ProcessGroup()

_NOT_KEEPABLE = (
    "the layers of this architecture hand on more than hidden states (examples, tokens, width), or padding changes "
    "these, so that they cannot be kept; train it without the cache"
)

_OTHER_TOKENS = (
    "the batch holds other tokens than the examples whose states are to be read; positions count in the tokens that "
    "the cache was filled with"
)


class PrefixCache:
    """Hidden states after the layers below `lowest_layer`, for every token of a set of examples.

    Args:
        scorer: the model; what lies below `lowest_layer` must not change while the cache is in use.
        lowest_layer: index of the lowest layer that is trained: 0 keeps and skips nothing, None (no layer is
            trained, only what follows them) skips all of them.
        groups: names of the groups that are trained; None stands for all of the scorer's.

    Raises:
        UnsupportedModelError: as `find_layers`.
        TargetError: there is no such layer or group.
    """

    def __init__(self, scorer: Scorer, lowest_layer: int | None, groups: Sequence[str] | None = None) -> None:
        layers = list(find_layers(scorer.model))
        if lowest_layer is not None and not 0 <= lowest_layer < len(layers):
            raise TargetError(f"there is no layer {lowest_layer}; the layers are 0 to {len(layers) - 1}")
        self._scorer = scorer
        self._frozen = layers[:lowest_layer]
        names = list(scorer.trained) if groups is None else groups
        check_group_names(names, scorer.trained)
        self._trained = {group: scorer.trained[group] for group in names}
        self._kept: _KeptStates | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes of the kept states."""
        return 0 if self._kept is None else self._kept.rows.nbytes

    @torch.no_grad()
    def fill(self, tokens: TokenizedTexts, *, batch_tokens: int, process_group: ProcessGroup = _ALONE) -> None:
        """Run the model once on n examples, in batches of at most `batch_tokens` tokens, and keep the states.

        Args:
            tokens: the examples.
            batch_tokens: most tokens of a batch, padding included.
            process_group: processes that share the batches of a model that is sharded over them; each keeps all states.

        Raises:
            TargetError: a group is used before the last frozen layer, so that it changes the states.
            UnsupportedModelError: with the kept states the features are others: the layers hand on more than these,
                or padding changes them.
            NtkError: `batch_tokens` is below 1.
        """
        kept: _KeptStates | None = None
        together = length_buckets(tokens.lengths, batch_tokens=batch_tokens) if self._frozen else []
        buckets = [positions for bucket in together for positions in self._scorer.at_once(bucket)]
        for positions, counts in process_group.rounds(buckets):
            batch = tokens.batch(positions)
            output = self._run(batch)
            states = output[0] if isinstance(output, tuple) else output
            if not isinstance(states, Tensor) or states.shape[:-1] != batch.input_ids.shape:
                raise UnsupportedModelError(_NOT_KEEPABLE)
            if kept is None:
                rows = states.new_zeros(len(tokens.ids) + 1, states.shape[-1])
                size = len(output) if isinstance(output, tuple) else None
                kept = _KeptStates(tokens, rows, size, self._frozen[0])
            if counts:
                real = batch.attention_mask.bool()
                kept.rows[kept.index(positions, batch.input_ids.shape[1])[real]] = states[real]
        if kept is not None:
            join(kept.rows, process_group)
            shortest, longest = buckets[0][0], buckets[-1][-1]
            self._check(kept, [shortest])
            for positions in self._scorer.at_once([shortest, longest]):
                self._check(kept, positions)
        self._kept = kept

    @contextmanager
    def reading(self, positions: Positions, batch: Batch) -> Iterator[None]:
        """Let `scorer.logits(batch)` skip the frozen layers inside this context; gradients above them are unchanged.

        Args:
            positions: (B,) the examples of `fill` that make up the batch; one may come several times.
            batch: these examples, padded on the right to any length.

        Raises:
            FinetuneError: the cache is empty, or the batch holds other tokens.
        """
        with reading_together([self], [positions], batch):
            yield

    def _states(self) -> "_KeptStates":
        if self._kept is None:
            raise FinetuneError("the cache of the frozen layers is empty; call fill first")
        return self._kept

    def _run(self, batch: Batch) -> Any:
        """Run the model; return what the last frozen layer returned."""
        outputs: list[Any] = []
        before: list[str] = []

        def note(group: str, *_: object) -> None:
            if not outputs:
                before.append(group)

        handles = [self._frozen[-1].register_forward_hook(lambda _module, _args, output: outputs.append(output))]
        for group, trained in self._trained.items():
            handles += [linear.module.register_forward_pre_hook(partial(note, group)) for linear in trained]
        try:
            self._scorer.logits(batch)
        finally:
            for handle in handles:
                handle.remove()
        if not outputs:
            raise UnsupportedModelError(_NOT_KEEPABLE)
        if before:
            raise TargetError(
                f"the group {before[0]} is adapted below layers that are taken as frozen; lower lowest_layer, or "
                "leave the group out"
            )
        return outputs[-1]

    def _check(self, kept: "_KeptStates", positions: Positions) -> None:
        """Compare with a run of all layers, because only the last states of the frozen layers are kept."""
        batch = kept.tokens.batch(positions)
        expected = self._scorer.features(batch)
        states = kept.states(positions, batch.input_ids, batch.attention_mask)
        with _returning(self._frozen, kept.as_returned(states)):
            difference = self._scorer.features(batch) - expected
        if difference.norm() > torch.finfo(states.dtype).eps ** 0.5 * expected.norm():
            raise UnsupportedModelError(_NOT_KEEPABLE)


@contextmanager
def reading_together(caches: Sequence[PrefixCache], positions: Sequence[Positions], batch: Batch) -> Iterator[None]:
    """Read as `PrefixCache.reading` does, from several caches of one model.

    Args:
        caches: of the same layers.
        positions: for each cache the examples of its `fill`.
        batch: these examples, cache after cache.

    Raises:
        FinetuneError: a cache is empty, or the batch holds other tokens.
    """
    frozen = caches[0]._frozen
    if not frozen:
        yield
        return
    if sum(len(chosen) for chosen in positions) != len(batch):
        raise FinetuneError(_OTHER_TOKENS)
    kept = [cache._states() for cache in caches]
    states, first = [], 0
    for each, chosen in zip(kept, positions, strict=True):
        last = first + len(chosen)
        states.append(each.states(chosen, batch.input_ids[first:last], batch.attention_mask[first:last]))
        first = last
    with _returning(frozen, kept[0].as_returned(states[0] if len(states) == 1 else torch.cat(states))):
        yield


@dataclass(frozen=True, eq=False)
class _KeptStates:
    """States of examples with N tokens together.

    Attributes:
        tokens: the examples.
        rows: (N + 1, d) states, example after example; zeros at the end, for padding.
        size: length of the tuple in which a layer returns its states; None where it returns a tensor.
        first: the first of the layers.
    """

    tokens: TokenizedTexts
    rows: Tensor
    size: int | None
    first: nn.Module

    def index(self, positions: Positions, n_tokens: int) -> Tensor:
        """Return the row (B, T) of each of the first T tokens; -1 beyond the end of an example."""
        chosen, offsets = torch.as_tensor(positions), torch.from_numpy(self.tokens.offsets)
        tokens = offsets[chosen, None] + torch.arange(n_tokens)
        return torch.where(tokens < offsets[chosen + 1, None], tokens, -1)

    def states(self, positions: Positions, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the states (B, T, d) of a batch (B, T), zero at padding."""
        index, real = self.index(positions, input_ids.shape[1]), attention_mask.bool()
        ids = torch.from_numpy(self.tokens.ids)
        if not torch.equal(index >= 0, real) or bool((ids[index[real]] != input_ids[real]).any()):
            raise FinetuneError(_OTHER_TOKENS)
        return self.rows[index]

    def as_returned(self, states: Tensor) -> Any:
        """Return states (B, T, d) in the way in which a layer returns them."""
        if self.size is None:
            return states
        beside = (position_bias(self.first, states.shape[1]), *[None] * (self.size - 2))
        return (states, *beside)[: self.size]


def _returning(layers: Sequence[nn.Module], output: Any) -> AbstractContextManager[None]:
    """Return the context in which the layers return `output` without running."""
    return replaced_forwards(dict.fromkeys(layers, lambda *_args, **_kwargs: output))
