"""Label words: the logits of one word a class, read at the mask of a prompt or at its end, as outputs."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from finetune.data.tokens import load_tokenizer
from finetune.errors import HeadError, LabelWordError, PromptError
from finetune.model.architecture import base_prefix, reads_mask
from finetune.model.loading import load_config
from finetune.parallel.weights import unsharded
from finetune.settings import HeadSettings, ModelSettings
from ntk_dist.jacobian.batches import Batch


@dataclass(frozen=True)
class WordIds:
    """Token ids of the label words, and of the mask at which a masked language model is read.

    Attributes:
        words: one a class.
        mask: None for a causal language model, which is read at the last token.
    """

    words: list[int]
    mask: int | None


def check_label_words(model: ModelSettings, head: HeadSettings, template: str | None, *, n_outputs: int) -> None:
    """Check words and prompt, if the head has label words, without loading a weight.

    Raises:
        LabelWordError: as `word_ids`.
        PromptError: as `word_ids`; a masked language model without {mask} in the prompt, or a causal one with it;
            the tokenizer of a causal one closes each text with a token of its own.
        ModelLoadError, UnsupportedModelError: as `finetune.model.loading.load_config`.
    """
    if head.kind != "label_words":
        return
    ids = word_ids(model, head.words, n_outputs)
    has_mask = template is not None and "{mask}" in template
    if ids.mask is not None and not has_mask:
        raise PromptError(
            f"{model.path} is a masked language model, whose label words are read at a mask: put {{mask}} into the "
            "template, as in '{text} It was {mask}.'"
        )
    if ids.mask is None and has_mask:
        raise PromptError(
            f"{model.path} is a causal language model, whose label words are read behind the text: take {{mask}} out "
            "of the template and let it end where the word would follow, as in '{text} It was'"
        )
    if ids.mask is None:
        _refuse_closing_token(model, head.words[0], ids.words[0])


def _refuse_closing_token(model: ModelSettings, word: str, word_id: int) -> None:
    """Refuse a tokenizer that puts a token behind each text, where words are read behind the text.

    Args:
        model: a causal language model.
        word: a word of one token.
        word_id: that token.
    """
    tokenizer = load_tokenizer(model)
    last = tokenizer(word)["input_ids"][-1]
    if last != word_id:
        raise PromptError(
            f"the tokenizer of {model.path} ends each text with {tokenizer.convert_ids_to_tokens(last)}, and label "
            "words would be read behind it, not behind the text: set add_eos_token: false in its "
            "tokenizer_config.json, or take that token out of post_processor in its tokenizer.json"
        )


def word_ids(model: ModelSettings, words: tuple[str, ...], n_outputs: int) -> WordIds:
    """Token ids of the label words, and of the mask if the model is a masked language model.

    Raises:
        LabelWordError: there is not one word for each output, or a word is not one token, is unknown, or
            stands for two outputs.
        PromptError: the tokenizer of a masked language model has no mask token.
    """
    if len(words) != n_outputs:
        raise LabelWordError(f"{len(words)} label words for {n_outputs} outputs; give one word a class")
    tokenizer = load_tokenizer(model)
    ids: list[int] = []
    for word in words:
        tokens = tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
            pieces = tokenizer.convert_ids_to_tokens(tokens)
            raise LabelWordError(
                f"the label word {word!r} must be one known token, but the tokenizer turns it into {pieces}; "
                "choose another word, and note that a word inside a sentence starts with a space"
            )
        if tokens[0] in ids:
            raise LabelWordError(f"the label word {word!r} is the same token as another label word")
        ids.append(tokens[0])
    if not reads_mask(load_config(model, n_outputs)):
        return WordIds(ids, None)
    if tokenizer.mask_token_id is None:
        raise PromptError(f"the tokenizer of {model.path} has no mask token, at which label words could be read")
    return WordIds(ids, int(tokenizer.mask_token_id))


def word_head(model: PreTrainedModel, ids: list[int]) -> nn.Linear:
    """Return the rows `ids` of the output embedding as a linear head (d -> number of words), which is never sharded.

    Raises:
        HeadError: the model has no output embedding.
    """
    embedding = _output_embedding(model)
    weight, bias = unsharded(embedding.weight), getattr(embedding, "bias", None)
    # nn.Linear draws weights of its own from the global generator
    with torch.random.fork_rng(devices=[]):
        head = nn.Linear(weight.shape[1], len(ids), bias=bias is not None, dtype=weight.dtype, device=weight.device)
    chosen = torch.tensor(ids).to(weight.device)
    with torch.no_grad():
        head.weight.copy_(weight[chosen])
        if bias is not None:
            head.bias.copy_(unsharded(bias)[chosen])
    return head.requires_grad_(False)


def score_words_alone(model: PreTrainedModel, head: nn.Linear) -> None:
    """Make a language model score the label words instead of its vocabulary, in place.

    What stands between base model and vocabulary (dense layer, activation, norm), and behind it (a factor, a soft cap),
    differs between architectures and runs as it is; the output embedding keeps its parameters.
    """
    # an attribute of the instance comes before the method of its class
    vars(_output_embedding(model))["forward"] = head


def at_mask(batch: Batch, mask: int) -> tuple[Tensor, Tensor]:
    """Index (B,), (B,) of the one mask token of each example.

    Raises:
        PromptError: an example that does not hold exactly one.
    """
    found = batch.input_ids == mask
    counts = found.sum(dim=1)
    if not bool((counts == 1).all()):
        row = int((counts != 1).nonzero()[0])
        raise PromptError(
            f"sequence {row} of a batch holds {int(counts[row])} mask tokens instead of one; tokenize it with a "
            "template that has {mask}"
        )
    return torch.arange(len(batch), device=found.device), found.long().argmax(dim=1)


def check_word_head(model: PreTrainedModel, missing: Collection[str], path: str) -> None:
    """Check that the checkpoint holds everything between the base model and its words.

    Args:
        model: the language model, with or without weights.
        missing: names of the parameters that the checkpoint does not give.
        path: where it is.

    Raises:
        HeadError: it does not; words scored by drawn weights would mean nothing.
    """
    prefix = base_prefix(model)
    absent = sorted(name for name in missing if not name.startswith(prefix))
    if absent:
        raise HeadError(
            f"{path} has no {absent[0]}: it was saved without its language-model head, so that its label words mean "
            "nothing; use the checkpoint of the language model, or another kind of head"
        )


def _output_embedding(model: PreTrainedModel) -> Any:
    embedding = model.get_output_embeddings()
    if embedding is None:
        raise HeadError(f"{type(model).__name__} has no output embedding to read label words from; use another head")
    return embedding
