"""Checks that a checkpoint holds exactly the base model that its configuration describes."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from finetune.errors import ModelLoadError
from finetune.libraries.faults import loading
from finetune.libraries.quiet import quiet
from finetune.model.architecture import base_prefix
from finetune.model.weight_files import are_here, weight_files
from finetune.settings import ModelSettings

_POOLER = re.compile(r"(^|\.)[a-z_]*pooler\.")
"""The layer that pools the first token: some classes of an architecture lack it; where missing, it is drawn."""

_OTHER_PARTS = re.compile(r"^(decoder|shared|vision|visual|audio|image|mtp|multi_modal|lm_head|cls|predictions)")
"""Parts beside the base model that checkpoints of a larger model keep under its prefix."""

_BUFFERS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|inv_freq|(causal|tri)?_?mask|masked_bias|[a-z]+_cached|num_batches_tracked|"
    r"embed_positions\.(weights|_float_tensor)|relative_position_(index|bucket)|alibi|pos_encoding|h?attn\.bias|"
    r"attention\.(bias|attention\.bias))$"
)
"""Tables that are computed when a model is made; older releases of transformers saved them."""

_MOST_SHAPES = 2
"""Parameters whose shapes are told."""

_QUANTIZED = re.compile(r"(^|\.)(qweight|qzeros|scales|g_idx|SCB|absmax|quant_map|weight_scale(_inv)?|weight_packed)$")

_OF_ADAPTERS = re.compile(
    r"(^|\.)(lora_[A-Za-z_]+|base_layer|modules_to_save|original_module|ia3_l|hada_w[12]_[ab]|oft_[rR]|vera_lambda_[bd]|"
    r"adapters)(\.|$)"
)
"""What libraries of adapters write beside, or in the place of, the weights that they adapt."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """Differences between a checkpoint and a model.

    Attributes:
        missing: names of the parameters that the checkpoint lacks.
        unexpected: names of its tensors that the model has no use for.
        mismatched: the parameters that have another shape in it, with that shape and the model's.
    """

    missing: frozenset[str]
    unexpected: frozenset[str] = frozenset()
    mismatched: Mapping[str, tuple[Shape, Shape]] = field(default_factory=dict)

    @classmethod
    def reported(cls, report: dict[str, Any]) -> "Fit":
        """Return the differences that transformers reports after loading a checkpoint."""
        return cls(
            frozenset(report["missing_keys"]),
            frozenset(report["unexpected_keys"]),
            {name: (tuple(held), tuple(wanted)) for name, held, wanted in report["mismatched_keys"]},
        )

    def drawn(self, model: PreTrainedModel) -> frozenset[str]:
        """Return the names of the model's parameters that the checkpoint does not give."""
        return (self.missing | self.mismatched.keys()) & {name for name, _ in model.named_parameters()}


@dataclass(frozen=True)
class _Case:
    """A model and the tensors of a checkpoint; two cases are equal if the same text describes them."""

    text: str
    kind: type[PreTrainedModel] = field(compare=False)  # not the model itself, which would live as long as the case
    config: PretrainedConfig = field(compare=False)
    shapes: dict[str, Shape] = field(compare=False)


def check_checkpoint(settings: ModelSettings, model: PreTrainedModel) -> frozenset[str]:
    """Check that a checkpoint fits a model, from the headers of its files alone; one that is not here yet passes.

    Returns:
        Names of the parameters that will be drawn, as `LoadedModel.missing`; none where no weights are here.

    Args:
        settings: where the checkpoint is.
        model: without weights, of the same configuration.

    Raises:
        ModelLoadError: as `check_fit` and `finetune.model.weight_files.weight_files`.
    """
    if settings.weights == "random" or not are_here(settings):
        return frozenset()
    with weight_files(settings) as files:
        shapes = files.shapes
    text = f"{type(model)} {model.config.to_json_string(use_diff=False)} {sorted(shapes.items())}"
    with loading(settings.path):
        fit = _fit(_Case(text, type(model), model.config, shapes))
    check_fit(settings, model, fit)
    return fit.drawn(model)


# a sweep of several tasks asks for each of them
@lru_cache(maxsize=8)
def _fit(case: _Case) -> Fit:
    """Have transformers load tensors without numbers: names change on the way by rules of its own."""
    tensors = {name: torch.empty(shape, device="meta") for name, shape in case.shapes.items()}
    with quiet():
        _, report = case.kind.from_pretrained(
            None,
            config=case.config,
            state_dict=tensors,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    return Fit.reported(report)


def check_fit(settings: ModelSettings, model: PreTrainedModel, fit: Fit) -> None:
    """Check that nothing of the base model would be drawn or dropped, its pooler excepted.

    Args:
        settings: where the weights come from.
        model: the model, with or without them.
        fit: how they differ from it.

    Raises:
        ModelLoadError: a parameter of the base model is missing or has another shape, or the weights hold more of it
            than the configuration describes; names the first one.
    """
    prefix = base_prefix(model)
    order = [name for name, _ in model.named_parameters(remove_duplicate=False) if name.startswith(prefix)]
    _check_shapes(settings, model, fit, order)
    held = _unused(model, prefix, fit.unexpected)
    if quantized := [name for name in held if _QUANTIZED.search(name)]:
        raise ModelLoadError(
            f"{settings.path}: the weights hold {quantized[0]}: they are quantized, which config.json does not say; "
            "use the checkpoint that they were made from"
        )
    lacking = [name for name in order if name in fit.missing and not _POOLER.search(name.removeprefix(prefix))]
    adapter = next((name for name in sorted(fit.unexpected) if _OF_ADAPTERS.search(name)), None)
    if adapter is not None and (lacking or held):
        raise ModelLoadError(
            f"{settings.path}: the weights hold {adapter}: they are those of an adapter, or of a model with one that "
            "was not merged into it; load the model with its adapter as it was trained, merge it (merge_and_unload of "
            "peft), and save the result with `save_pretrained`"
        )
    if lacking and fit.missing.issuperset(order):
        if wrapper := _wrapper(fit, lacking, prefix):
            raise ModelLoadError(
                f"{settings.path}: the names of all weights begin with `{wrapper}`, as a wrapper of the model saves "
                "them; load them into the model without it (DataParallel, torch.compile), and save that with "
                "`save_pretrained`"
            )
        raise ModelLoadError(
            f"{settings.path}: the weights hold none of the parameters of {type(model).__name__}; they "
            "belong to another architecture than config.json says"
        )
    if lacking:
        raise ModelLoadError(
            f"{settings.path}: the weights lack {lacking[0]}{_more(lacking)}, which config.json describes and which "
            "would be drawn at random; correct config.json (its number of layers?), or get the checkpoint again"
        )
    if held:
        raise ModelLoadError(
            f"{settings.path}: the weights hold {held[0]}{_more(held)}, for which the model of config.json has no "
            "place; correct config.json (its number of layers?), or get the checkpoint again"
        )


def _check_shapes(settings: ModelSettings, model: PreTrainedModel, fit: Fit, order: Sequence[str]) -> None:
    """Check that no parameter of the base model, given in the model's order, has another shape."""
    wrong = [name for name in order if name in fit.mismatched]
    if not wrong:
        return
    if len(wrong) == 1 and (sizes := _tokens(model, fit, wrong[0])):
        raise ModelLoadError(
            f"{settings.path}: the weights have an embedding of {sizes[0]} tokens, and config.json describes "
            f"{sizes[1]}: tokens were added, or taken out; set its vocab_size to {sizes[0]}, with the tokenizer "
            "that belongs to it, or get the checkpoint again"
        )
    raise ModelLoadError(
        f"{settings.path}: the weights have other shapes than config.json describes: "
        f"{_shapes(fit, wrong[:_MOST_SHAPES])}{_more(wrong, _MOST_SHAPES)}; the files do not belong "
        "together: get the checkpoint again"
    )


def _tokens(model: PreTrainedModel, fit: Fit, name: str) -> tuple[int, int] | None:
    """Return the tokens of the input embedding, as held and as described; None if another parameter has this name."""
    module = model.get_submodule(name.rpartition(".")[0])
    held, wanted = fit.mismatched[name]
    if module is not model.get_input_embeddings() or held[1:] != wanted[1:]:
        return None
    return held[0], wanted[0]


def _wrapper(fit: Fit, wanted: Collection[str], prefix: str) -> str | None:
    """Return what stands before the names of all parameters in a checkpoint, whole or of the base model alone."""
    for names in (wanted, [name.removeprefix(prefix) for name in wanted]):
        first = next(iter(names))
        for found in sorted(fit.unexpected):
            before = found.removesuffix(first)
            if before.endswith(".") and found != before and all(before + name in fit.unexpected for name in names):
                return before
    return None


def _unused(model: PreTrainedModel, prefix: str, unexpected: Collection[str]) -> list[str]:
    """Return the tensors that belong to the base model and are dropped, in natural order."""
    children = {name for name, _ in model.base_model.named_children()}
    dropped = []
    for name in unexpected:
        inside = name.removeprefix(prefix)
        first = inside.split(".")[0]
        # A checkpoint of the base model alone has no prefix, so a head is told apart by the base model's own names.
        of_base = first in children or (name.startswith(prefix) and not _OTHER_PARTS.search(inside))
        if of_base and not _POOLER.search(inside) and not _BUFFERS.search(inside):
            dropped.append(name)
    return sorted(
        dropped, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )


def _more(names: list[str], shown: int = 1) -> str:
    return f" and {len(names) - shown} more" if len(names) > shown else ""


def _shapes(fit: Fit, names: list[str]) -> str:
    """Return the shapes of parameters, as they are held and as they are described."""
    both = ((name, *fit.mismatched[name]) for name in names)
    return ", ".join(f"{name} is {_shape(held)} and should be {_shape(wanted)}" for name, held, wanted in both)


def _shape(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "one number"
