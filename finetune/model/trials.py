"""Passes with made-up tokens before a scorer is used: for its label words, and for the axes on which examples stand."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from finetune.errors import ModelRunError, UnsupportedModelError
from finetune.model.architecture import linears
from finetune.model.batching import draws_at_random
from finetune.model.label_words import score_words_alone
from finetune.model.model_state import undone
from ntk_dist.jacobian.batches import Batch, pad
from ntk_dist.jacobian.example_axes import Trial, example_axes
from ntk_dist.jacobian.tracked import TrackedLinear

if TYPE_CHECKING:
    from finetune.model.scorer import Scorer

_SIZES = ((3, 5), (2, 7))
"""Examples and tokens of each trial: sizes that have no factor in common."""


def try_out(scorer: "Scorer") -> None:
    """Set the attributes of a scorer that need passes through its model, and leave the model unchanged.

    Args:
        scorer: with all adapters and its head.

    Raises:
        UnsupportedModelError: as `take_words`.
        BatchingError: as `find_example_axes`.
    """
    with undone(scorer.model):
        if scorer.words is not None:
            take_words(scorer)
        if not scorer.alone:
            find_example_axes(scorer)


def take_words(scorer: "Scorer") -> None:
    """Let a scorer compute only the logits of its label words, after one comparison with the model's own logits.

    Args:
        scorer: of label words.

    Raises:
        UnsupportedModelError: the logit of a word depends on more than its row of the output embedding.
    """
    assert scorer.words is not None
    words, mask = scorer.words.words, scorer.words.mask
    batch = pad([np.array(words if mask is None else [*words, mask])], pad_id=0).to(scorer.device)
    with torch.no_grad():
        own = scorer.vocabulary_logits(batch)[:, -1].index_select(1, torch.tensor(words).to(scorer.device))
        score_words_alone(scorer.model, scorer.final)
        try:
            scored = scorer.logits(batch)
        except ModelRunError as error:
            # the same tokens went through, with the logits of all words
            raise _changes_logits(scorer) from error
    # in half precision the model rounds its logits a few times more
    rounding = 4 * torch.finfo(own.dtype).eps
    relative, absolute = max(1e-3, rounding), max(1e-5, rounding * float(own.abs().max()))
    if scored.shape != own.shape or not torch.allclose(scored, own.to(scored.dtype), rtol=relative, atol=absolute):
        raise _changes_logits(scorer)


def find_example_axes(scorer: "Scorer") -> None:
    """Set the example axes of a scorer's tracked modules, see `ntk_dist.jacobian.example_axes`.

    Args:
        scorer: with all adapters and its head.

    Raises:
        BatchingError: the model draws at random.
    """

    def trial(n_examples: int, n_tokens: int) -> Trial:
        first, second = (_batch(scorer, n_examples, n_tokens, changed=changed) for changed in (False, True))
        return Trial(n_examples, lambda: scorer.logits(first), lambda: scorer.logits(second))

    modules = list(linears(scorer.model).values())
    scorer.example_axes = example_axes(modules, [trial(*sizes) for sizes in _SIZES])
    if None in scorer.example_axes.values():
        _check_repeated(scorer)
    placed: dict[TrackedLinear, TrackedLinear] = {}
    for groups in (scorer.groups, scorer.trained):
        for name, group in groups.items():
            groups[name] = [placed.setdefault(linear, _placed(scorer, linear)) for linear in group]


@torch.no_grad()
def _check_repeated(scorer: "Scorer") -> None:
    """Check that chance is not what hides the examples: inputs that differ each time differ everywhere."""
    batch = _batch(scorer, *_SIZES[0], changed=False)
    passes = []
    for _ in range(2):
        with undone(scorer.model):
            passes.append(scorer.logits(batch))
    first, second = passes
    if float((first - second).norm()) > torch.finfo(first.dtype).eps ** 0.5 * float(first.norm()):
        raise draws_at_random(type(scorer.model).__name__)


def plain_tokens(config: PreTrainedConfig, count: int, *, without: int | None) -> NDArray[np.int64]:
    """Return token ids of plain words: none that the configuration names as special, and not `without`."""
    texts: Any = config.get_text_config()
    special = {value for part in (config, texts) for value in _named_ids(part)} | {without}
    # models of characters have no vocabulary
    size = int(getattr(texts, "vocab_size", 0) or 256)
    drawn = np.random.default_rng(0).choice(size, min(size, count + len(special)), replace=False)
    return np.resize(np.array([token for token in drawn if token not in special], dtype=np.int64), count)


def _changes_logits(scorer: "Scorer") -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{type(scorer.model).__name__} changes its logits after the output embedding, by a bias of its own or "
        "otherwise, in a way that is not known here, so that label words cannot be scored; use a random or ridge head"
    )


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
