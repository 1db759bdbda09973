"""Baselines of a selection: layers chosen without any kernel."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import comb

import numpy as np

from finetune.analysis.weight_condition import weight_condition_numbers
from finetune.errors import FinetuneError
from finetune.model.weight_files import are_pickled
from orchestrator.errors import SourceError
from orchestrator.results.selection.criteria import Criterion
from orchestrator.results.selection.stored import StoredKernels
from orchestrator.sweep.settings import adapter_settings, head_settings, model_settings
from orchestrator.sweep.sources import find_again
from orchestrator.sweep.variant import Variant

RANDOM_SETS = 10
"""Random sets of layers whose values are averaged."""

RANDOM = "random"
LAST = "last"
WELL_CONDITIONED = "smallest_weight_condition"
ILL_CONDITIONED = "largest_weight_condition"


def baseline_values(
    kernels: StoredKernels, criterion: Criterion, size: int, weights: Mapping[int, float]
) -> dict[str, float]:
    """Return the criterion of `size` layers by baseline; for random ones its mean over sets.

    Args:
        kernels: the kernel blocks of one seed.
        criterion: the criterion.
        size: number of layers.
        weights: condition number of each layer's pretrained weights; without them those baselines are left out.
    """
    drawn = [kernels.value(kernels.of(layers), criterion) for layers in random_sets(kernels.layers, size)]
    fixed = {name: kernels.value(kernels.of(layers), criterion) for name, layers in _fixed(kernels, size, weights)}
    return {RANDOM: criterion.mean(drawn), **fixed}


def random_sets(layers: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Return RANDOM_SETS distinct sets of `size` layers, the same at every call; all sets if there are no more."""
    if comb(len(layers), size) <= RANDOM_SETS:
        return list(combinations(layers, size))
    draw = random.Random(0)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < RANDOM_SETS:
        found[tuple(sorted(draw.sample(layers, size)))] = None
    return list(found)


def weight_conditions(variant: Variant, groups_of: Mapping[int, Sequence[str]]) -> tuple[Mapping[int, float], str]:
    """Return the condition number of each layer's adapted weights before training, or the reason why it is missing.

    Of a layer with several target modules it is the geometric mean of theirs. The model is loaded for it, from where
    the sweep found it; without it, nothing and the reason are returned.

    Args:
        variant: a variant of the sweep.
        groups_of: names of the groups of each layer.
    """
    sweep, source = variant.sweep, variant.sweep.sources.model
    try:
        if find_again("model", source).content_id != source.content_id:
            return {}, f"the model at {source.location} is no longer the one that the sweep was run with"
        settings = model_settings(sweep)
        if are_pickled(settings):
            return {}, f"the weights at {source.location} are pickled, and a look at results loads no pickle"
        of_groups = weight_condition_numbers(
            settings,
            adapter_settings(sweep.spec.adapter),
            head_settings(sweep.spec.head),
            n_outputs=variant.survey.n_outputs,
        )
    except (SourceError, FinetuneError) as error:
        return {}, str(error)
    if unknown := [group for groups in groups_of.values() for group in groups if group not in of_groups]:
        return {}, f"the survey in the results folder names {', '.join(unknown)}, which the model does not have"
    by_layer = {
        layer: float(np.exp(np.mean([np.log(of_groups[group]) for group in groups])))
        for layer, groups in groups_of.items()
    }
    return by_layer, ""


def _fixed(kernels: StoredKernels, size: int, weights: Mapping[int, float]) -> Iterator[tuple[str, Sequence[int]]]:
    yield LAST, kernels.layers[-size:]
    if weights:
        ascending = sorted(kernels.layers, key=weights.__getitem__)
        yield WELL_CONDITIONED, ascending[:size]
        yield ILL_CONDITIONED, ascending[-size:]
