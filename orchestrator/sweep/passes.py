"""What passes through the model cost: floating-point operations, and passes of batches through layers.

A forward pass takes two operations for each weight of a linear module and token, and four for each pair of tokens, each
feature and layer; a backward pass to the activations takes as many (Kaplan et al., arXiv 2001.08361, section 2.1).
"""

import math
from collections.abc import Iterable

from orchestrator.store.stage import StageCost
from orchestrator.sweep.variant import Variant


def forward(variant: Variant, n_examples: float, *, at_once: float | None = None, share: float = 1.0) -> StageCost:
    """Return the cost of the outputs of some examples.

    Args:
        variant: the variant, whose model it is.
        n_examples: how many examples, each as often as it is passed.
        at_once: examples of a batch; None takes as many as captures do.
        share: share of the layers that is run; the states below the others are cached.
    """
    layers, model = variant.n_layers * share, variant.survey.model
    tokens = variant.survey.mean_tokens
    of_example = 2.0 * model.linear_parameters * tokens * share
    of_example += 4.0 * model.hidden_size * tokens**2 * layers
    return StageCost(
        model_flops=of_example * n_examples, layer_passes=_batches(variant, n_examples, at_once) * max(1.0, layers)
    )


def rows(variant: Variant, n_examples: int, groups: Iterable[str]) -> StageCost:
    """Return the cost of the Jacobian rows of some examples with respect to some groups.

    It is that of a forward pass, and for each output of a backward one down to the lowest layer that has such a group.
    """
    lowest = min((variant.layers_below[group] for group in groups), default=variant.n_layers)
    back = forward(variant, n_examples, share=1 - lowest / variant.n_layers if variant.n_layers else 1.0)
    return forward(variant, n_examples) + variant.sizes.rows_per_example * back


def _batches(variant: Variant, n_examples: float, at_once: float | None) -> float:
    tokens = variant.sweep.spec.compute.tokens_at_once
    fitting = variant.sizes.batch_size if tokens == "auto" else tokens / variant.survey.mean_tokens
    return math.ceil(n_examples / max(1.0, at_once or min(variant.sizes.batch_size, fitting)))
