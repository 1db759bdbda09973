"""Loading a pretrained model, with its weights or without them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from finetune.errors import ModelLoadError, UnsupportedModelError
from finetune.libraries.faults import loading
from finetune.libraries.quiet import quiet
from finetune.model.architecture import encoder_alone, reads_mask
from finetune.model.checkpoint_fit import Fit, check_fit
from finetune.model.checkpoint_kind import check_kind
from finetune.model.device import check_device
from finetune.model.module_count import not_too_many, number_of_layers
from finetune.model.random_weights import random_model
from finetune.model.weight_files import check_weight_files
from finetune.parallel.weights import has_sharded, local_part
from finetune.settings import ModelSettings
from ntk_dist.errors import NonFiniteError

_MOST_LAYERS = 2000
"""Largest number of layers: each one's modules are made even without weights, which takes a few milliseconds."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model with its weights.

    Attributes:
        model: in eval mode; no parameter requires a gradient.
        missing: names of the parameters that the checkpoint lacks or holds in another shape; none of random weights.
    """

    model: PreTrainedModel
    missing: frozenset[str]


def load_config(settings: ModelSettings, n_outputs: int) -> PreTrainedConfig:
    """The model's configuration, for a head with `n_outputs` outputs.

    Raises:
        ModelLoadError: there is none at that path or id, or it describes more layers than any model has.
        UnsupportedModelError: the model is an encoder-decoder other than T5, of which the encoder is taken, or as
            `finetune.model.checkpoint_kind.check_kind`.
    """
    with loading(settings.path), quiet():
        config = AutoConfig.from_pretrained(
            settings.path,
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
            num_labels=n_outputs,
        )
        check_kind(settings, config)
    config.return_dict = True  # outputs are read by their names
    _check_layers(settings, config)
    if getattr(config, "is_encoder_decoder", False) and not encoder_alone(config):
        raise UnsupportedModelError(
            f"{settings.path} is an encoder-decoder ({config.model_type}); use an encoder (BERT, RoBERTa, T5's, "
            "...) or a decoder (GPT-2, Llama, ...)"
        )
    return config


def _check_layers(settings: ModelSettings, config: PreTrainedConfig) -> None:
    layers = number_of_layers(config)
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        raise ModelLoadError(
            f"{settings.path}: config.json says {layers} layers (num_hidden_layers), more than {_MOST_LAYERS}, which "
            "no model has; correct it, or get the checkpoint again"
        )


def empty_model(settings: ModelSettings, *, n_outputs: int, language_model: bool) -> PreTrainedModel:
    """The model without weights, on the meta device.

    Raises:
        ModelLoadError, UnsupportedModelError: as `load_config`, or no such head exists for the architecture, or it has
            too many modules.
        HeadError: as `finetune.model.architecture.reads_mask`.
    """
    config = load_config(settings, n_outputs)
    with loading(settings.path), quiet(), not_too_many(settings.path, config), torch.device("meta"):
        return model_from(settings, config, language_model=language_model)


def load_model(settings: ModelSettings, *, n_outputs: int, language_model: bool, seed: int) -> LoadedModel:
    """The model with its weights, ready to be evaluated.

    Args:
        settings: where it is and how it is loaded.
        n_outputs: outputs of the head; a head of another size counts as missing.
        language_model: load the language model, masked or causal as the architecture is, instead of the classifier.
        seed: seeds what transformers draws for parameters that the checkpoint lacks.

    Raises:
        ModelLoadError: nothing there, a file of the weights is missing or damaged, or they do not fit the architecture.
        NoDeviceError, DeviceError: as `finetune.model.device.check_device`.
        NonFiniteError: a weight is NaN or infinite; names the parameter.
        UnsupportedModelError, HeadError: as `empty_model`.
    """
    device = check_device(settings)
    config = load_config(settings, n_outputs)
    if settings.weights == "pretrained":
        # transformers does not say which of the files is damaged
        check_weight_files(settings)
    fit = Fit(frozenset())
    with loading(settings.path), quiet():
        if settings.weights == "random":
            model = drawn_model(settings, config, language_model=language_model, device=device)
        else:
            model, fit = _from_checkpoint(settings, _auto_class(config, language_model), config, seed)
    model.requires_grad_(False).eval()
    check_fit(settings, model, fit)
    _check_finite(settings, model)
    if not has_sharded(model):
        # of a sharded model each part is already where DeepSpeed wants it
        model.to(device)
    return LoadedModel(model, fit.drawn(model))


def drawn_model(
    settings: ModelSettings, config: PreTrainedConfig, *, language_model: bool, device: torch.device
) -> PreTrainedModel:
    """The model that a configuration describes, with random weights."""
    make = partial(model_from, settings, config, language_model=language_model)
    return _in_double(random_model(make, device, settings.weights_seed), settings)


def model_from(settings: ModelSettings, config: PreTrainedConfig, *, language_model: bool) -> PreTrainedModel:
    """The model that a configuration describes, as its architecture initializes itself."""
    model: PreTrainedModel = _auto_class(config, language_model).from_config(config, **_options(settings))
    return model


def _from_checkpoint(
    settings: ModelSettings, auto_class: Any, config: PreTrainedConfig, seed: int
) -> tuple[PreTrainedModel, Fit]:
    """The model, and how the checkpoint differs from it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, report = auto_class.from_pretrained(
            settings.path,
            config=config,
            revision=settings.revision,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **_options(settings),
        )
    return _in_double(model, settings), Fit.reported(report)


def _auto_class(config: PreTrainedConfig, language_model: bool) -> Any:
    if language_model:
        return AutoModelForMaskedLM if reads_mask(config) else AutoModelForCausalLM
    if encoder_alone(config):
        # loaded only where it is needed, as the Auto classes do
        from finetune.model.encoder import T5EncoderForSequenceClassification

        return T5EncoderForSequenceClassification
    return AutoModelForSequenceClassification


def _options(settings: ModelSettings) -> dict[str, Any]:
    return {
        "dtype": getattr(torch, settings.dtype),
        # None takes the fused attention too, but the plain one of architectures that know no other, as Gemma 2, which
        # caps its scores; by its name it would be refused there
        "attn_implementation": None if settings.attention == "sdpa" else settings.attention,
        "trust_remote_code": settings.trust_remote_code,
        # the product of all experts at once does not know double precision
        **({"experts_implementation": "eager"} if settings.dtype == "float64" else {}),
    }


def _in_double(model: PreTrainedModel, settings: ModelSettings) -> PreTrainedModel:
    """Return a model in double precision without parameters in single precision, as architectures ask for routers."""
    if settings.dtype == "float64" and not has_sharded(model):
        for parameter in model.parameters():
            if parameter.dtype == torch.float32:
                parameter.data = parameter.data.double()
    return model


def _check_finite(settings: ModelSettings, model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        # of a sharded model each process looks at its part
        part = local_part(parameter)
        # one sum costs less than a mask; elements are checked only if the sum is not finite
        if not bool(torch.isfinite(part.sum())) and not bool(torch.isfinite(part).all()):
            if settings.dtype == "float16" and not bool(part.isnan().any()):
                raise NonFiniteError(
                    f"the parameter {name} of the model holds numbers beyond 65504, the largest of float16, or the "
                    "checkpoint is damaged; set model.dtype: bfloat16 or float32"
                )
            raise NonFiniteError(
                f"the parameter {name} of the model holds NaN or infinite values; the checkpoint is damaged, "
                "get it again"
            )
