"""Sizes and groups of a model with its adapter and head, without loading a weight."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from finetune.model.adapter import computed_weights, dense_parts
from finetune.model.architecture import (
    HEAD_GROUP,
    Target,
    base_model,
    final_linear,
    find_targets,
    head_linears,
    is_decoder,
    linears,
    n_layers,
)
from finetune.model.checkpoint_fit import check_checkpoint
from finetune.model.head import check_pretrained_head
from finetune.model.label_words import check_word_head
from finetune.model.loading import empty_model
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.jacobian.tracked import check_groups


@dataclass(frozen=True)
class GroupFacts:
    """One group of parameters.

    Attributes:
        name: its name, as in `Scorer.groups`.
        layer: index of its layer; None for the head and for modules outside the layers.
        target: its name without the layer.
        n_parameters: columns of its Jacobian block, without the parts whose gradient is always zero.
        zero_parts: names of those parts.
    """

    name: str
    layer: int | None
    target: str
    n_parameters: int
    zero_parts: tuple[str, ...]


@dataclass(frozen=True)
class ModelFacts:
    """A model with adapter and head.

    Attributes:
        groups: by layer, then in the order of the targets; the head last.
        n_layers: layers, up to the last one that has linear modules of its own; 0 where the model has no layers.
        hidden_size: width d of the hidden states.
        n_parameters: scalars of the model, head included, adapter not.
        linear_parameters: those of linear modules with which a token is multiplied; the head's not.
        weight_bytes: their size in memory.
        largest_layer_bytes: that of the largest layer, or of the embeddings if those are larger.
        linear_width: inputs and outputs of all linear modules together: about the numbers that are kept of a token for
            the backward pass.
        model_type: transformers' name of the architecture.
        is_decoder: whether the output is read at the last token.
    """

    groups: tuple[GroupFacts, ...]
    n_layers: int
    hidden_size: int
    n_parameters: int
    linear_parameters: int
    weight_bytes: int
    largest_layer_bytes: int
    linear_width: int
    model_type: str
    is_decoder: bool


def inspect_model(model: ModelSettings, adapter: AdapterSettings, head: HeadSettings, *, n_outputs: int) -> ModelFacts:
    """Return the facts that a plan needs. A head of zeros, which only the weights would show, is not considered.

    Raises:
        FinetuneError: a named subclass says whether model, head or target is wrong; also where the checkpoint lacks a
            head that it should bring.
        TiedWeightsError: a parameter belongs to two groups.
    """
    language_model = head.kind == "label_words"
    network = empty_model(model, n_outputs=n_outputs, language_model=language_model)
    missing = check_checkpoint(model, network)
    targets = find_targets(network, adapter.target_modules)
    own = targets if adapter.kind == "none" else [each for each in targets if not computed_weights(each.module)]
    check_groups({target.group: dense_parts(target).tracked for target in own})
    groups = [_target_facts(target, adapter) for target in targets]
    if language_model:
        check_word_head(network, missing, model.path)
    else:
        final = final_linear(network, n_outputs)[1]
        if head.kind == "pretrained":
            check_pretrained_head(network, missing, n_outputs=n_outputs)
        if head.in_kernel:
            size = sum(p.numel() for module in head_linears(network).values() for p in module.parameters())
            if head.kind in ("ridge", "logistic") and "bias" not in dict(final.named_parameters()):
                size += n_outputs  # the probe brings its own bias
            groups.append(GroupFacts(HEAD_GROUP, None, HEAD_GROUP, size, ()))
    parameters = list(network.parameters())
    return ModelFacts(
        groups=tuple(groups),
        n_layers=n_layers(network),
        hidden_size=int(network.config.get_text_config().hidden_size),
        n_parameters=sum(p.numel() for p in parameters),
        linear_parameters=linear_parameters(network),
        weight_bytes=_bytes(network),
        largest_layer_bytes=_largest_layer_bytes(network),
        linear_width=sum(sum(module.weight.shape) for module in linears(base_model(network)).values()),
        model_type=str(network.config.model_type),
        is_decoder=is_decoder(network),
    )


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def linear_parameters(network: PreTrainedModel) -> int:
    """Return the scalars of linear modules with which a token is multiplied: of experts, of those that it goes to."""
    base, config = base_model(network), network.config.get_text_config()
    chosen = getattr(config, "num_experts_per_tok", None)
    # Experts are kept together, (experts, out, in), or as a list of linear modules.
    together = sum(p.numel() / len(p) for p in base.parameters() if p.dim() == 3) * (chosen or 1)
    experts, rest = 0.0, 0
    for name, module in linears(base).items():
        if ".experts." in name and chosen:
            experts += module.weight.numel() * chosen / _n_experts(config)
        else:
            rest += module.weight.numel()
    return int(together + experts + rest)


def _n_experts(config: PreTrainedConfig) -> int:
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    return next((int(found) for name in names if (found := getattr(config, name, None))), 1)


def _largest_layer_bytes(network: PreTrainedModel) -> int:
    """Return the bytes of the largest part of a model: a layer, or a module outside of the layers."""
    layers = [child for module in network.modules() if isinstance(module, nn.ModuleList) for child in module]
    inside = {id(module) for layer in layers for module in layer.modules()}
    beside = [module for module in network.modules() if id(module) not in inside and not any(module.children())]
    return max(map(_bytes, [*layers, *beside]))


def _target_facts(target: Target, adapter: AdapterSettings) -> GroupFacts:
    weight = target.module.weight
    zero: tuple[str, ...] = ()
    if adapter.kind == "none":
        size = dense_parts(target).tracked[0].n_parameters
    else:
        # (out, in) or, for Conv1D, (in, out)
        n_out, n_in = weight.shape if isinstance(target.module, nn.Linear) else weight.shape[::-1]
        size = adapter.rank * n_out
        if adapter.initialization == "random":
            size += adapter.rank * n_in
        else:
            zero = ("lora_A",)
    return GroupFacts(target.group, target.layer, target.target, size, zero)
