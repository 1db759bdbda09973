"""Texts as token ids: one flat array for all examples, from which batches are cut."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from finetune.data.limits import TextLimits, text_limits
from finetune.errors import EmptyTextError, ModelLoadError, PromptError, TooLongError
from finetune.libraries.faults import loading, tokenizing
from finetune.libraries.quiet import quiet
from finetune.libraries.tokenizer_files import unread_vocabulary
from finetune.settings import ModelSettings
from ntk_dist.jacobian.batches import Batch, pad

_MOST_UNKNOWN = 0.8
"""Share of unknown tokens above which a tokenizer cannot be that of the texts."""

_KEPT_TEXTS = 64
"""Number of texts that are looked at for letters that no token stands for."""

_FEWEST_TEXTS = 8
"""Smallest number of texts for which that share is checked."""

_PLACEHOLDERS = re.compile(r"\{(text|text_pair|mask)\}")


@dataclass(frozen=True, eq=False)
class TokenizedTexts:
    """n tokenized examples.

    Attributes:
        ids: int32, the token ids of all examples, one after the other.
        offsets: (n + 1,) int64; example i has ids[offsets[i] : offsets[i + 1]].
        token_types: int32 like `ids`, for models that tell them apart.
        pad_id: the id that fills batches up.
        room: most tokens that the model takes of an example; None where it has no limit, or none that is known.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    token_types: NDArray[np.int32] | None
    pad_id: int
    room: int | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) number of tokens of each example."""
        return np.diff(self.offsets)

    def batch(self, positions: Sequence[int] | NDArray[np.integer]) -> Batch:
        """The examples at `positions`, padded on the right."""
        spans = [slice(self.offsets[i], self.offsets[i + 1]) for i in positions]
        types = self.token_types
        return pad(
            [self.ids[span] for span in spans],
            pad_id=self.pad_id,
            token_types=None if types is None else [types[span] for span in spans],
        )


def tokenize(
    model: ModelSettings,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    template: str | None,
    max_length: int,
) -> TokenizedTexts:
    """Tokenize with the model's own tokenizer, its special tokens included.

    Without a template long examples are cut at the end (of the longer text of a pair). With one, {text} is
    cut so that the rest of the prompt stays whole; {text_pair} in the template takes the second text,
    otherwise it goes in as a second sequence; {mask} becomes the tokenizer's mask token.

    Args:
        model: where the tokenizer is.
        texts: n texts.
        pairs: n second texts, or None.
        template: the prompt, or None.
        max_length: tokens kept of an example.

    Raises:
        EmptyTextError: a text without a token; names the example.
        TooLongError: a template that leaves no room for the text, or an example longer than the model takes.
        PromptError: a template with {mask} for a tokenizer without a mask token, or around a text that holds one.
        ModelLoadError: there is no tokenizer at that path, it has no vocabulary or a larger one than the model, has
            more types of tokens, or knows nearly nothing of the texts.
    """
    tokenizer = load_tokenizer(model)
    check_knows_words(model, tokenizer)
    with tokenizing(model.path):
        if template is None:
            encoded = _encode(tokenizer, list(texts), pairs, max_length)
        else:
            encoded = _encode_prompts(tokenizer, template, list(texts), pairs, max_length)
    sequences: list[list[int]] = encoded["input_ids"]
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    if (lengths == 0).any():
        example = int(np.flatnonzero(lengths == 0)[0])
        raise EmptyTextError(f"example {example} ({texts[example]!r}) has no token; remove it from the data")
    if template is not None and "{mask}" in template:
        _check_one_mask(tokenizer, sequences)
    limits = text_limits(model)
    room = room_for_text(limits, tokenizer)
    _check_room(room, lengths)
    _check_ids(model, limits, tokenizer, sequences)
    _check_known(model, tokenizer, texts, sequences)
    types = _types(model, limits, encoded.get("token_type_ids"))
    return TokenizedTexts(
        ids=np.concatenate([np.array(sequence, dtype=np.int32) for sequence in sequences]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        token_types=None if types is None else np.concatenate([np.array(t, dtype=np.int32) for t in types]),
        pad_id=_pad_id(tokenizer, limits),
        room=room,
    )


def _types(model: ModelSettings, limits: TextLimits, found: list[list[int]] | None) -> list[list[int]] | None:
    """Return the types of the tokens; None where the model does not tell them apart, as RoBERTa with its one type."""
    if found is None or limits.types in (0, 1):
        return None
    largest = max(max(types) for types in found)
    if limits.types is not None and largest >= limits.types:
        raise ModelLoadError(
            f"the tokenizer of {model.path} gives tokens the type {largest}, but the model has {limits.types} types of "
            "tokens (type_vocab_size), counted from 0; use the tokenizer of the model"
        )
    return found


def _pad_id(tokenizer: Any, limits: TextLimits) -> int:
    """Return an id that the model has: one for padding may have been added, or be missing, and is masked anyway."""
    known = tokenizer.pad_token_id
    return 0 if known is None or (limits.ids is not None and known >= limits.ids) else int(known)


def load_tokenizer(model: ModelSettings) -> Any:
    """Return the tokenizer of a model.

    Raises:
        ModelLoadError: there is none, or a library raises an error.
    """
    with loading(model.path, "tokenizer", partial(unread_vocabulary, model.path, model.revision)), quiet():
        return AutoTokenizer.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )


def _encode(
    tokenizer: Any, texts: list[str], pairs: Sequence[str] | None, max_length: int | None
) -> dict[str, list[list[int]]]:
    encoded: dict[str, list[list[int]]] = tokenizer(
        texts,
        None if pairs is None else list(pairs),
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        verbose=False,
    )
    return encoded


def _encode_prompts(
    tokenizer: Any, template: str, texts: list[str], pairs: Sequence[str] | None, max_length: int
) -> dict[str, list[list[int]]]:
    if "{mask}" in template and tokenizer.mask_token is None:
        raise PromptError(
            "the template has {mask}, but the tokenizer has no mask token; take {mask} out of the template"
        )
    inline = "{text_pair}" in template
    second = None if inline else pairs

    def prompts(chosen: Sequence[int], kept: Sequence[str]) -> dict[str, list[list[int]]]:
        filled = [
            _fill(template, {"text": text, "text_pair": pairs[i] if pairs else "", "mask": tokenizer.mask_token})
            for i, text in zip(chosen, kept, strict=True)
        ]
        return _encode(tokenizer, filled, None if second is None else [second[i] for i in chosen], None)

    encoded = {key: list(values) for key, values in prompts(range(len(texts)), texts).items()}
    shortened = list(texts)
    while long := [i for i, ids in enumerate(encoded["input_ids"]) if len(ids) > max_length]:
        for i in long:
            excess = len(encoded["input_ids"][i]) - max_length
            shortened[i] = _without_last_tokens(tokenizer, shortened[i], excess, i, max_length)
        for key, values in prompts(long, [shortened[i] for i in long]).items():
            for i, value in zip(long, values, strict=True):
                encoded[key][i] = value
    return encoded


def _fill(template: str, parts: Mapping[str, str]) -> str:
    # one pass, so that braces inside the texts stay what they are
    return _PLACEHOLDERS.sub(lambda match: parts[match[1]], template)


def _check_one_mask(tokenizer: Any, sequences: list[list[int]]) -> None:
    for example, sequence in enumerate(sequences):
        if (count := sequence.count(tokenizer.mask_token_id)) != 1:
            raise PromptError(
                f"example {example} has {count} mask tokens behind its prompt instead of one; take "
                f"{tokenizer.mask_token} out of its text, and have {{mask}} in the template once"
            )


def _without_last_tokens(tokenizer: Any, text: str, count: int, example: int, max_length: int) -> str:
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    if len(spans) <= count:
        raise TooLongError(
            f"example {example}: the template leaves no room for the text in {max_length} tokens; raise "
            "max_length or shorten the template"
        )
    return text[: spans[len(spans) - count][0]].rstrip()


def room_for_text(limits: TextLimits, tokenizer: Any) -> int | None:
    """Return the most tokens of a text that a model and its tokenizer take; None where no limit is known."""
    # a limit of 0 or -1 means that there is none
    return min(
        (value for value in (int(tokenizer.model_max_length), limits.tokens) if value and value > 0), default=None
    )


def _check_room(room: int | None, lengths: NDArray[np.int64]) -> None:
    if room is not None and lengths.max() > room:
        raise TooLongError(
            f"example {int(lengths.argmax())} has {lengths.max()} tokens, but the model takes {room}; set "
            f"max_length to {room} or less"
        )


def check_knows_words(model: ModelSettings, tokenizer: Any) -> None:
    """Check that a tokenizer has a vocabulary: without its files transformers makes one of special tokens alone.

    Raises:
        ModelLoadError: it has none.
    """
    added = {str(token) for token in tokenizer.get_added_vocab()} | set(tokenizer.all_special_tokens)
    if not set(tokenizer.get_vocab()) - added:
        raise ModelLoadError(
            f"the tokenizer of {model.path} knows no word: its vocabulary is missing (tokenizer.json, vocab.txt, ...); "
            "save the model's own tokenizer beside config.json"
        )


def _check_ids(model: ModelSettings, limits: TextLimits, tokenizer: Any, sequences: list[list[int]]) -> None:
    for example, sequence in enumerate(sequences):
        if limits.ids is not None and max(sequence) >= limits.ids:
            token = max(sequence)
            raise ModelLoadError(
                f"the tokenizer of {model.path} has {len(tokenizer)} tokens, but the model's embedding has "
                f"{limits.ids} rows: example {example} holds {tokenizer.convert_ids_to_tokens(token)!r}, whose id is "
                f"{token}; resize the embedding (resize_token_embeddings), or use the tokenizer of the model"
            )


def _check_known(model: ModelSettings, tokenizer: Any, texts: Sequence[str], sequences: list[list[int]]) -> None:
    """Check that the texts are not nearly all unknown, or dropped; special tokens are not counted."""
    _check_kept(model, tokenizer, texts)
    if tokenizer.unk_token_id is None:
        return
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    words = [[token for token in sequence if token not in special] for sequence in sequences]
    unknown = [sequence.count(tokenizer.unk_token_id) for sequence in words]
    total = sum(map(len, words))
    if len(texts) >= _FEWEST_TEXTS and sum(unknown) > _MOST_UNKNOWN * total:
        example = next(i for i, count in enumerate(unknown) if count)
        raise ModelLoadError(
            f"the tokenizer of {model.path} knows almost nothing of these texts: {sum(unknown)} of {total} tokens are "
            f"unknown to it, as in example {example} ({texts[example][:60]!r}); use the tokenizer of the model, and a "
            "model of the texts' language"
        )


def _check_kept(model: ModelSettings, tokenizer: Any, texts: Sequence[str]) -> None:
    """Check that tokens stand for nearly all characters of the first texts: some tokenizers drop what they lack."""
    if not getattr(tokenizer, "is_fast", False) or len(texts) < _FEWEST_TEXTS:
        return
    looked_at = list(texts[:_KEPT_TEXTS])
    spans = tokenizer(looked_at, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    total = kept = 0
    for text, of_text in zip(looked_at, spans, strict=True):
        covered = {place for start, end in of_text for place in range(start, end)}
        letters = [place for place, letter in enumerate(text) if letter.isalnum()]
        total += len(letters)
        kept += sum(place in covered for place in letters)
    if total - kept > _MOST_UNKNOWN * total:
        raise ModelLoadError(
            f"the tokenizer of {model.path} ({type(tokenizer).__name__}) drops {total - kept} of {total} letters of "
            f"these texts, as of {looked_at[0][:60]!r}; use the tokenizer of the model: tokenizer_class in "
            "tokenizer_config.json may name another kind than tokenizer.json holds"
        )
