"""Kinds of checkpoints that are not plain weights: quantized ones, and models with an adapter beside them."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils.hub import cached_file

from finetune.errors import UnsupportedModelError
from finetune.settings import ModelSettings

_ADAPTER = "adapter_config.json"


def check_kind(settings: ModelSettings, config: PreTrainedConfig) -> None:
    """Check that a checkpoint is plain weights; random ones need none.

    Raises:
        UnsupportedModelError: its weights are quantized, or an adapter lies beside them.
    """
    if settings.weights == "random":
        return
    method = _quantization(config)
    if method is not None:
        raise UnsupportedModelError(
            f"{settings.path} is quantized ({method}, by quantization_config in its config.json), and quantized "
            "weights have no Jacobian of their own; use the checkpoint that it was made from, or save it dequantized"
        )
    if _has_adapter(settings):
        raise UnsupportedModelError(
            f"{settings.path} holds an adapter ({_ADAPTER}) beside the model, which transformers would load with it: "
            "move the adapter's files out of the folder, or merge it (merge_and_unload of peft) and save the result"
        )


def _quantization(config: PreTrainedConfig) -> str | None:
    """Return how a checkpoint was quantized; None if it was not."""
    for part in (config, config.get_text_config()):
        found: Any = getattr(part, "quantization_config", None) or getattr(part, "compression_config", None)
        if found:
            facts = found if isinstance(found, Mapping) else vars(found)
            return str(facts.get("quant_method") or "in a way that it does not name")
    return None


def _has_adapter(settings: ModelSettings) -> bool:
    found = cached_file(
        settings.path,
        _ADAPTER,
        revision=settings.revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found is not None
