"""Limit on the number of a model's modules: a configuration may ask for any number, and each takes 0.1 ms to make."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import PreTrainedConfig

from finetune.errors import ModelLoadError

MOST_MODULES = 150_000
"""More modules than any known model has, even with a module for each of 384 experts in 61 layers."""


def number_of_layers(config: PreTrainedConfig) -> object:
    """Return a configuration's number of layers; None if it has none, or describes several text models."""
    try:
        return getattr(config.get_text_config(), "num_hidden_layers", None)
    except ValueError:
        return None


@contextmanager
def not_too_many(path: str, config: PreTrainedConfig) -> Iterator[None]:
    """Count the modules of the one model that is made inside this context.

    Args:
        path: folder or id of the model.
        config: its configuration.

    Raises:
        ModelLoadError: there are more than `MOST_MODULES`.
    """
    count = 0

    def counted(_module: nn.Module, _name: str, _child: object) -> None:
        nonlocal count
        count += 1
        if count > MOST_MODULES:
            layers = number_of_layers(config)
            raise ModelLoadError(
                f"{path}: config.json describes a model of more than {MOST_MODULES:,} modules"
                + (f" (num_hidden_layers: {layers})" if layers is not None else "")
                + ", which takes too long to look at; correct its numbers of layers and experts"
            )

    handle = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()
