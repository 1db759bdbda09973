"""Starting points of cells: the pretrained point and the examples of each seed, for several seeds in one model.

Seeds draw their own examples, adapters and heads, and have all other weights in common. A model is loaded for one of
them; of the others it is enough to know the parameters that differ.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from finetune.data.tokens import TokenizedTexts
from finetune.errors import UnsupportedModelError
from finetune.model.prefix import PrefixCache
from finetune.model.scorer import Scorer
from finetune.parallel.weights import is_sharded
from finetune.training.trainable import Split
from ntk_dist.jacobian.tracked import TrackedLinear


@dataclass(frozen=True, eq=False)
class Origin:
    """The point theta_0 that cells start from, and the examples that they see.

    Attributes:
        texts: the examples by split.
        weights: value at this point of those parameters of the scorer's model that have another one there.
        prefixes: by split, the filled caches of what leaves the frozen layers; none runs them at every step.
    """

    texts: Mapping[Split, TokenizedTexts]
    weights: Mapping[Tensor, Tensor] = field(default_factory=dict)
    prefixes: Mapping[Split, PrefixCache] = field(default_factory=dict)


def differing_weights(scorer: Scorer, other: Scorer) -> dict[Tensor, Tensor]:
    """Return the parameters of a scorer's model whose values differ in another scorer, with the other's values.

    Raises:
        UnsupportedModelError: one of them is not a weight or bias of a linear module.
    """
    values = dict(_parameters(other.model))
    differing = {
        name: (parameter, values[name].detach())
        for name, parameter in _parameters(scorer.model)
        # What is sharded comes from the checkpoint, which is the same for all seeds.
        if not is_sharded(parameter) and not torch.equal(parameter, values[name])
    }
    linear = {id(parameter) for module in _linear_modules(scorer.model).values() for _, parameter in _own(module)}
    for name, (parameter, _) in differing.items():
        if id(parameter) not in linear:
            raise UnsupportedModelError(
                f"{name} differs between seeds and does not belong to a linear module, so that seeds cannot be "
                "stacked; leave them out of finetune.stacked_across"
            )
    return dict(differing.values())


@contextmanager
def starting_from(weights: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """Give parameters the values of an origin inside this context."""
    before = {parameter: parameter.data for parameter in weights}
    try:
        for parameter, value in weights.items():
            parameter.data = value
        yield
    finally:
        for parameter, value in before.items():
            parameter.data = value


def linears_apart(scorer: Scorer, trained: Sequence[TrackedLinear], origins: Sequence[Origin]) -> list[TrackedLinear]:
    """Return the linear modules that may not be the same for all cells: the trained ones and those that differ."""
    differing = {id(parameter) for origin in origins for parameter in origin.weights}

    def differs(module: nn.Module) -> bool:
        return any(id(parameter) in differing for _, parameter in _own(module))

    names = {id(linear.module): linear.name for linear in trained}
    return [
        *(linear for linear in trained if not differs(linear.module)),
        *(
            TrackedLinear(
                module,
                names.get(id(module), name),
                bias=module.bias is not None,
                example_axis=scorer.example_axes.get(module),
            )
            for name, module in _linear_modules(scorer.model).items()
            if differs(module)
        ),
    ]


def joined(texts: Sequence[TokenizedTexts]) -> TokenizedTexts:
    """Return the examples of several origins, one after the other."""
    if len(texts) == 1:
        return texts[0]
    types = [each.token_types for each in texts if each.token_types is not None]
    ends = np.cumsum([len(each.ids) for each in texts])
    shifted = [each.offsets[1:] + end - len(each.ids) for each, end in zip(texts, ends, strict=True)]
    return TokenizedTexts(
        ids=np.concatenate([each.ids for each in texts]),
        offsets=np.concatenate([[0], *shifted]),
        token_types=np.concatenate(types) if types else None,
        pad_id=texts[0].pad_id,
    )


def _parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in model.named_modules():
        for name, parameter in _own(module):
            yield f"{path}.{name}", parameter


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a module's own parameters, and those that `hide_unsharded_parameters` has made plain attributes."""
    yield from module.named_parameters(recurse=False)
    yield from ((name, value) for name, value in vars(module).items() if isinstance(value, Tensor))


def _linear_modules(model: nn.Module) -> dict[str, nn.Linear | Conv1D]:
    return {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
