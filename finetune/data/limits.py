"""Limits on the texts that a model takes: its token ids, and its number of tokens."""

from dataclasses import dataclass
from inspect import signature

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from finetune.errors import ModelLoadError
from finetune.libraries.faults import loading
from finetune.libraries.quiet import quiet
from finetune.settings import ModelSettings

_SCALED = ("linear", "dynamic", "yarn", "llama3", "longrope")


@dataclass(frozen=True)
class TextLimits:
    """Limits of a model; None where it has none, or none that is known.

    Attributes:
        ids: rows of its input embedding: token ids are below.
        tokens: tokens for which it has positions.
        types: types of tokens that it tells apart, as the first and the second text of a pair; 0 where it takes none.
    """

    ids: int | None
    tokens: int | None
    types: int | None = None


def text_limits(settings: ModelSettings) -> TextLimits:
    """Return the limits of a model, without loading a weight.

    Raises:
        ModelLoadError: there is no configuration.
    """
    with loading(settings.path):
        config = AutoConfig.from_pretrained(
            settings.path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )
    # XLNet says -1, and means that there is no limit
    said = getattr(config.get_text_config(), "max_position_embeddings", None)
    tokens = said if isinstance(said, int) and said > 0 else None
    try:
        with loading(settings.path), quiet(), torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=settings.trust_remote_code)
    except ModelLoadError:
        # code that comes with a model need not have a class without a head
        return TextLimits(None, tokens)
    return TextLimits(_rows(model), _positions(model, tokens), _types(model))


def _rows(model: PreTrainedModel) -> int | None:
    try:
        embedding = model.get_input_embeddings()
    except NotImplementedError:
        # CANINE hashes characters
        return None
    return int(embedding.num_embeddings) if isinstance(embedding, nn.Embedding) else None


def _types(model: PreTrainedModel) -> int | None:
    if "token_type_ids" not in signature(model.forward).parameters:
        return 0
    said = getattr(model.config.get_text_config(), "type_vocab_size", None)
    return said if isinstance(said, int) else None


def _positions(model: PreTrainedModel, said: int | None) -> int | None:
    """Return the tokens that fit a table of positions: where one row is that of padding, positions start behind it."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name.rpartition(".")[2] and said == module.num_embeddings:
            return said if module.padding_idx is None else said - module.padding_idx - 1
    return None if said is None else max(said, _scaled(model.config, said))


def _scaled(config: PreTrainedConfig, said: int) -> int:
    """Return the tokens that scaled rotary positions are made for, as transformers defines each way of scaling.

    A factor multiplies the length before scaling. Of linear and dynamic scaling that is max_position_embeddings; the
    others may have it apart, and max_position_embeddings is often the length that they reach.
    """
    scaling = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kind, factor = scaling.get("rope_type"), scaling.get("factor")
    before = said if kind in ("linear", "dynamic") else scaling.get("original_max_position_embeddings")
    if kind not in _SCALED or not isinstance(factor, int | float) or not isinstance(before, int):
        return said
    return int(before * factor)
