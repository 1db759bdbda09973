"""Passes with made-up tokens that find the example axis of each linear module's input."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedConfig

from finetune.model.architecture import linears
from ntk_dist.jacobian.batches import Batch, pad
from ntk_dist.jacobian.example_axes import Trial, example_axes
from ntk_dist.jacobian.tracked import TrackedLinear

if TYPE_CHECKING:
    from finetune.model.scorer import Scorer

_SIZES = ((3, 5), (2, 7))
"""Examples and tokens of each trial: sizes that have no factor in common."""

Call = Callable[[Callable[[Batch], Tensor], Batch], Tensor]


def at_once(call: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """Call a function that runs the model on a batch."""
    return call(batch)


def find_example_axes(scorer: "Scorer", run: Call = at_once) -> None:
    """Set the example axes of a scorer's tracked modules, see `ntk_dist.jacobian.example_axes`.

    Args:
        scorer: with all adapters and its head.
        run: calls a function that runs the model on a batch, where that takes more than the call; all processes of a
            divided model do it alike.
    """

    def trial(n_examples: int, n_tokens: int) -> Trial:
        first, second = (_batch(scorer, n_examples, n_tokens, changed=changed) for changed in (False, True))
        return Trial(n_examples, lambda: run(scorer.logits, first), lambda: run(scorer.logits, second))

    modules = list(linears(scorer.model).values())
    scorer.example_axes = example_axes(modules, [trial(*sizes) for sizes in _SIZES])
    placed: dict[TrackedLinear, TrackedLinear] = {}
    for groups in (scorer.groups, scorer.trained):
        for name, group in groups.items():
            groups[name] = [placed.setdefault(linear, _placed(scorer, linear)) for linear in group]


def plain_tokens(config: PreTrainedConfig, count: int, *, without: int | None) -> NDArray[np.int64]:
    """Return token ids of plain words: none that the configuration names as special, and not `without`."""
    texts: Any = config.get_text_config()
    special = {value for part in (config, texts) for value in _named_ids(part)} | {without}
    # models of characters have no vocabulary
    size = int(getattr(texts, "vocab_size", 0) or 256)
    drawn = np.random.default_rng(0).choice(size, min(size, count + len(special)), replace=False)
    return np.resize(np.array([token for token in drawn if token not in special], dtype=np.int64), count)


def _placed(scorer: "Scorer", linear: TrackedLinear) -> TrackedLinear:
    return replace(linear, example_axis=scorer.example_axes[linear.module])


def _batch(scorer: "Scorer", n_examples: int, n_tokens: int, *, changed: bool) -> Batch:
    mask = None if scorer.words is None else scorer.words.mask
    tokens = plain_tokens(scorer.model.config, (n_examples + 1) * n_tokens, without=mask)
    tokens = tokens.reshape(n_examples + 1, n_tokens)
    examples = tokens[1:] if not changed else np.concatenate([tokens[:1], tokens[2:]])
    if mask is not None:
        examples[:, -1] = mask
    return pad(list(examples), pad_id=0)


def _named_ids(config: PreTrainedConfig) -> Iterator[int]:
    for name, value in config.to_dict().items():
        if name.endswith(("_token_id", "_token_index")):
            yield from value if isinstance(value, list) else [value] if isinstance(value, int) else []
