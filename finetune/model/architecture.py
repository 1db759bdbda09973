"""The parts of a transformers model: its base, its head, its layers, and the modules that targets name."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from finetune.errors import HeadError, TargetError, UnsupportedModelError

HEAD_GROUP = "head"


@dataclass(frozen=True, eq=False)
class Target:
    """A linear module of the base model that the user named.

    Attributes:
        group: name of its group.
        layer: index of its layer; None outside the layers.
        target: the group's name without the layer.
        path: its path in the model.
        module: the module.
    """

    group: str
    layer: int | None
    target: str
    path: str
    module: nn.Linear | Conv1D


def is_decoder(model: PreTrainedModel) -> bool:
    """Tell whether the model reads its output at the last token: a causal language model, or a `score` head."""
    if isinstance(getattr(model, "score", None), nn.Linear):
        return True
    return not has_head(model) and not reads_mask(model.config)


def reads_mask(config: PreTrainedConfig) -> bool:
    """Tell whether the language model of an architecture is a masked one; otherwise it is causal.

    Of most architectures transformers knows only one of the two. Of the others (BERT, RoBERTa, ...) a model is
    causal if its configuration says so: `is_decoder`, or the class that it was saved from.

    Raises:
        HeadError: only the encoder of the architecture is taken, which is no language model.
    """
    if encoder_alone(config):
        raise HeadError(
            f"of {config.model_type} only the encoder is taken, which has no words to score; use a random, ridge or "
            "logistic head instead of label_words"
        )
    if getattr(config, "is_decoder", False):
        return False
    masked, causal = type(config) in MODEL_FOR_MASKED_LM_MAPPING, type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    if masked != causal:
        return masked
    saved_from = " ".join(config.architectures or [])
    # neither: code that comes with the model
    return "MaskedLM" in saved_from or (masked and not any(name in saved_from for name in ("CausalLM", "LMHead")))


def encoder_alone(config: PreTrainedConfig) -> bool:
    """Tell whether only the encoder of the architecture is used: T5, also v1.1 and Flan."""
    return str(config.model_type) == "t5"


def has_head(model: PreTrainedModel) -> bool:
    """Tell whether the model is a classifier rather than a language model.

    Classes of transformers say so by their names; those that come with a checkpoint may have any, and config.json says
    which of them is the classifier.
    """
    name = type(model).__name__
    of_checkpoint = (getattr(model.config, "auto_map", None) or {}).get("AutoModelForSequenceClassification")
    return "ForSequenceClassification" in name or str(of_checkpoint).rpartition(".")[2] == name


def base_model(model: PreTrainedModel) -> nn.Module:
    """The model without its head.

    Raises:
        UnsupportedModelError: the model has no base model of its own.
    """
    named: nn.Module = model.base_model
    if named is not model:
        return named
    # some architectures have it under another name than their `base_model_prefix`
    inside: list[nn.Module] = [child for child in model.children() if isinstance(child, PreTrainedModel)]
    if len(inside) == 1:
        return inside[0]
    raise UnsupportedModelError(
        f"{type(model).__name__} does not keep its base model apart from its head; use an architecture of "
        "transformers that does (BERT, RoBERTa, GPT-2, Llama, ...)"
    )


def base_prefix(model: PreTrainedModel) -> str:
    """Path of the base model, with the dot that follows it.

    Raises:
        UnsupportedModelError: as `base_model`.
    """
    base = base_model(model)
    return next(f"{name}." for name, module in model.named_modules() if module is base)


def linears(model: nn.Module) -> dict[str, nn.Linear | Conv1D]:
    """Every linear module by path, in the model's order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def head_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear modules of the head: those outside the base model."""
    prefix = base_prefix(model)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(prefix)
    }


def final_linear(model: PreTrainedModel, n_outputs: int) -> tuple[str, nn.Linear]:
    """Path and module of the linear layer that gives the logits.

    Raises:
        HeadError: the head has no linear layer with `n_outputs` outputs.
    """
    fitting = [(name, module) for name, module in head_linears(model).items() if module.out_features == n_outputs]
    if not fitting:
        inside = [name for name, module in linears(model).items() if module.weight.shape[0] == n_outputs]
        where = f": {inside[-1]}, which has, is a part of the base model" if inside and has_head(model) else ""
        raise HeadError(
            f"the head of {type(model).__name__} has no linear layer with {n_outputs} outputs{where}; use "
            "label_words or another architecture"
        )
    return fitting[-1]


def find_targets(model: PreTrainedModel, targets: Sequence[str]) -> list[Target]:
    """The linear modules of the base model that the targets name, by layer, then in the order of the targets.

    A target matches a module whose path is the target or ends with a dot and the target, as in peft. A group
    is called after its layer and the target; where a target matches several modules of a layer, after the
    module's path inside the layer.

    Raises:
        TargetError: a target matches nothing; lists the names that exist and the nearest one.
    """
    prefix = base_prefix(model)
    candidates = {
        name.removeprefix(prefix): module for name, module in linears(model).items() if name.startswith(prefix)
    }
    matches: dict[str, str] = {}
    for target in targets:
        found = [path for path in candidates if _matches(prefix + path, target) or path == target]
        if not found:
            raise TargetError(_nothing_matches(target, list(candidates)))
        for path in found:
            matches.setdefault(path, target)
    located = [_locate(path) for path in matches]
    shared = Counter((layer, target) for (layer, _), target in zip(located, matches.values(), strict=True))
    chosen = []
    for (path, target), (layer, inside) in zip(matches.items(), located, strict=True):
        name = target if shared[layer, target] == 1 else inside
        group = name if layer is None else f"{layer}.{name}"
        chosen.append(Target(group, layer, name, prefix + path, candidates[path]))
    _check_distinct(chosen)
    return sorted(chosen, key=lambda target: (target.layer is None, target.layer or 0))


def n_layers(model: PreTrainedModel) -> int:
    """Number of layers, up to the last one that has linear modules of its own."""
    prefix = base_prefix(model)
    paths = [name.removeprefix(prefix) for name in linears(model) if name.startswith(prefix)]
    return max((layer + 1 for layer, _ in map(_locate, paths) if layer is not None), default=0)


def find_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The list of the base model's layers, in the order in which groups are numbered.

    Raises:
        UnsupportedModelError: the base model has no list of modules with linear ones inside, or several.
    """
    lists = {
        path: module
        for path, module in base_model(model).named_modules()
        # a list inside another one belongs to a layer: experts, or the parts of a block
        if isinstance(module, nn.ModuleList) and not any(part.isdigit() for part in path.split("."))
    }
    found = {path: module for path, module in lists.items() if linears(module)}
    if len(found) != 1:
        raise UnsupportedModelError(
            f"{type(model).__name__} should have one list of layers, but has {', '.join(found) or 'none'}, so that "
            "its frozen layers cannot be found; train it without the cache"
        )
    return next(iter(found.values()))


def position_bias(first: nn.Module, n_tokens: int) -> Tensor | None:
    """Return T5's position bias (1, heads, T, T), which the first layer computes and passes on to the others.

    None for other architectures, in which each layer computes its positions itself.

    Args:
        first: the first of the layers that `find_layers` finds.
        n_tokens: T.
    """
    module: Any
    for module in first.modules():
        if getattr(module, "has_relative_attention_bias", False):
            bias: Tensor = module.compute_bias(n_tokens, n_tokens)
            return bias
    return None


def _matches(path: str, target: str) -> bool:
    return path == target or path.endswith(f".{target}")


def _locate(path: str) -> tuple[int | None, str]:
    """Layer index (the first integer of the path) and the path inside the layer."""
    parts = path.split(".")
    for position, part in enumerate(parts):
        if part.isdigit():
            return int(part), ".".join(parts[position + 1 :])
    return None, path


def _nothing_matches(target: str, paths: list[str]) -> str:
    if not paths:
        return (
            f"target {target!r} matches no linear module of the model, which has none (torch.nn.Linear, or Conv1D of "
            "transformers): its layers are modules of other kinds; use another architecture"
        )
    names = Counter(path.rpartition(".")[2] for path in paths)
    nearest = difflib.get_close_matches(target.rpartition(".")[2], list(names), n=1, cutoff=0.4)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    existing = ", ".join(f"{name} ({count})" for name, count in names.items())
    return f"target {target!r} matches no linear module of the model.{hint} Its linear modules are: {existing}"


def _check_distinct(chosen: list[Target]) -> None:
    for group, count in Counter(target.group for target in chosen).items():
        if count > 1 or group == HEAD_GROUP:
            paths = ", ".join(target.path for target in chosen if target.group == group)
            raise TargetError(f"the group {group} would hold {paths}; name these modules by longer targets")
