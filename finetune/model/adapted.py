"""A pretrained model with its adapter and head, and the modules whose parameters are tracked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from finetune.errors import HeadError
from finetune.model.adapter import (
    GroupParts,
    check_group_names,
    dense_parts,
    insert_lora,
    is_zero,
    lora_parts,
    without_gradient,
)
from finetune.model.architecture import HEAD_GROUP, Target, final_linear, find_layers, find_targets
from finetune.model.head import draw_missing, head_parts, prepare_head
from finetune.model.label_words import WordIds, check_word_head, word_head, word_ids
from finetune.model.loading import LoadedModel
from finetune.parallel.weights import has_sharded
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.jacobian.tracked import TrackedLinear, check_alone, check_groups, check_products


@dataclass(frozen=True, eq=False)
class ScorerSettings:
    """All that determines a scorer, but for how many processes hold its model.

    Every draw depends on its seed and the parameter's own name: neither the other groups nor the precision change it.

    Attributes:
        model: the pretrained model.
        adapter: what is adapted.
        head: what gives the outputs.
        n_outputs: number of outputs C.
        adapter_seed: seed of LoRA's matrices.
        head_seed: seed of the head and of all parameters that the checkpoint lacks.
        head_weights: "weight" (C, d) and "bias" (C,) of a ridge or logistic probe; without them such a head is a random
            one, whose `features` the probe is fitted to.
        groups: the groups to track; None tracks all.

    Raises:
        HeadError: the head takes no weights of a probe, and some are given.
    """

    model: ModelSettings
    adapter: AdapterSettings
    head: HeadSettings
    n_outputs: int
    adapter_seed: int
    head_seed: int
    head_weights: Mapping[str, NDArray[np.floating]] | None = None
    groups: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.head_weights is not None and self.head.kind not in ("ridge", "logistic"):
            raise HeadError(f"a {self.head.kind} head takes no probe weights; use ridge or logistic")

    @property
    def language_model(self) -> bool:
        """True if the outputs are logits of words."""
        return self.head.kind == "label_words"

    def loaded_by(self, load: Callable[..., LoadedModel]) -> LoadedModel:
        """Return the model, without adapter, from a function that is called as `finetune.model.loading.load_model`."""
        return load(self.model, n_outputs=self.n_outputs, language_model=self.language_model, seed=self.head_seed)


@dataclass(frozen=True, eq=False)
class AdaptedModel:
    """A model with adapter and head.

    Attributes:
        model: the transformers model, adapters inside.
        final: the linear layer whose output are the logits.
        parts: by group its modules.
        drawn: names of the parameters that were drawn because no checkpoint gave them.
        words: the label words that are scored; None for a head of its own.
        layers: those that run again in the backward pass; none keeps all activations.
        alone: whether each example goes through the model alone.
    """

    model: PreTrainedModel
    final: nn.Linear
    parts: Mapping[str, GroupParts] = field(default_factory=dict)
    drawn: Sequence[str] = ()
    words: WordIds | None = None
    layers: Sequence[nn.Module] = ()
    alone: bool = False


def adapt(loaded: LoadedModel, settings: ScorerSettings) -> AdaptedModel:
    """Give a loaded model its adapter and head; it is changed in place.

    Raises:
        FinetuneError: a named subclass says whether head, target or group is wrong.
        TiedWeightsError: a parameter belongs to two groups, or to a module outside of them, too.
        NotRecordedError: as `ntk_dist.jacobian.tracked.check_products`.
    """
    network = loaded.model
    targets = find_targets(network, settings.adapter.target_modules)
    if not has_sharded(network):
        check_products(TrackedLinear(target.module, target.path) for target in targets)
    words = word_ids(settings.model, settings.head.words, settings.n_outputs) if settings.language_model else None
    final, drawn = _with_head(loaded, settings, words)
    parts = _chosen(_group_parts(network, settings, targets, final, words), settings.groups)
    check_groups({name: group.tracked for name, group in parts.items()})
    check_alone([linear for group in parts.values() for linear in group.trained], network)
    layers = list(find_layers(network)) if settings.model.checkpointing else []
    return AdaptedModel(network, final, parts, drawn, words, layers, settings.model.alone)


def _with_head(loaded: LoadedModel, settings: ScorerSettings, words: WordIds | None) -> tuple[nn.Linear, list[str]]:
    """Give a model its head; return the layer whose output are the logits, and the names of what was drawn."""
    if words is not None:
        check_word_head(loaded.model, loaded.missing, settings.model.path)
        drawn = draw_missing(loaded, settings.head_seed)
        return word_head(loaded.model, words.words), drawn
    drawn = prepare_head(
        loaded, settings.head, n_outputs=settings.n_outputs, seed=settings.head_seed, weights=settings.head_weights
    )
    return final_linear(loaded.model, settings.n_outputs)[1], drawn


def _group_parts(
    network: PreTrainedModel,
    settings: ScorerSettings,
    targets: Sequence[Target],
    final: nn.Linear,
    words: WordIds | None,
) -> dict[str, GroupParts]:
    """Insert the adapter; return the parts of all groups, the head's among them if it is in the kernel."""
    parts = _adapter_parts(network, settings, targets)
    if is_zero(final):
        parts = {name: without_gradient(group) for name, group in parts.items()}
    if settings.head.in_kernel and words is None:
        parts[HEAD_GROUP] = head_parts(network, settings.n_outputs)
    return parts


def _adapter_parts(
    network: PreTrainedModel, settings: ScorerSettings, targets: Sequence[Target]
) -> dict[str, GroupParts]:
    if settings.adapter.kind == "none":
        return {target.group: dense_parts(target) for target in targets}
    insert_lora(network, settings.adapter, targets, settings.adapter_seed)
    return {target.group: lora_parts(network, target) for target in targets}


def _chosen(parts: Mapping[str, GroupParts], groups: Sequence[str] | None) -> dict[str, GroupParts]:
    wanted = list(parts) if groups is None else groups
    check_group_names(wanted, parts)
    return {name: parts[name] for name in parts if name in wanted}
