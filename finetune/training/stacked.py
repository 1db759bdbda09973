"""The model itself with the weights of several cells: one batch goes through all of them, frozen weights are shared.

Each cell has its part of a batch. Every trained module multiplies the rows of a cell with that cell's weights, in one
batched product, and so does every module that differs between seeds; all other modules run unchanged.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.data.targets import kernel_outputs
from finetune.model.prefix import reading_together
from finetune.model.scorer import Scorer
from finetune.training.origins import Origin, joined, linears_apart
from finetune.training.shared_products import shared_products
from finetune.training.trainable import Displacement, Positions, Split, unmoved
from ntk_dist.jacobian.batches import Batch
from ntk_dist.jacobian.example_axes import by_example, from_examples
from ntk_dist.jacobian.forwards import replaced_forwards
from ntk_dist.jacobian.tracked import TrackedLinear
from ntk_dist.kernel.features import OutputMode


class StackedModel:
    """A scorer's model with the displacements of S cells of the trained modules of some groups.

    Args:
        scorer: the model; its own weights are never changed.
        groups: names of the groups that are trained.
        starts: the origins, with equally many examples each.
        outputs: which outputs are trained.
        origins: (S,) the origin of each cell.
    """

    def __init__(
        self,
        scorer: Scorer,
        groups: Sequence[str],
        starts: Sequence[Origin],
        outputs: OutputMode,
        origins: Sequence[int],
    ) -> None:
        self.linears = [linear for group in groups for linear in scorer.trained[group]]
        self.displacements = unmoved(self.linears, len(origins))
        self.origins = list(origins)
        self._scorer = scorer
        self._starts = starts
        self._outputs = outputs
        self._texts = {split: joined([start.texts[split] for start in starts]) for split in starts[0].texts}
        self._apart = linears_apart(scorer, self.linears, starts)

    def outputs(self, split: Split, positions: Sequence[Positions], cells: list[int]) -> Tensor:
        """See `Trainable.outputs`."""
        return self.outputs_at([self.displacements[cell] for cell in cells], split, positions, cells)

    def outputs_at(
        self, moved: Sequence[Displacement], split: Split, positions: Sequence[Positions], cells: list[int]
    ) -> Tensor:
        """Return what `outputs` does, with these displacements in the place of the cells' own."""
        origins = [self.origins[cell] for cell in cells]
        chosen = [np.asarray(positions[origin]) for origin in origins]
        if not self._scorer.alone:
            return self._at_once(moved, split, chosen, origins)
        return torch.cat(
            [
                torch.cat(
                    [self._at_once([each], split, [alone], [origin]) for alone in self._scorer.at_once(own)], dim=1
                )
                for each, own, origin in zip(moved, chosen, origins, strict=True)
            ]
        )

    def _at_once(
        self, moved: Sequence[Displacement], split: Split, positions: Sequence[Positions], origins: Sequence[int]
    ) -> Tensor:
        """Return the outputs (S, B, R) of one pass, for the examples at B positions of each cell's origin."""
        sizes = [len(start.texts[split]) for start in self._starts]
        firsts = np.cumsum([0, *sizes[:-1]])
        batch = self._texts[split].batch(
            np.concatenate([firsts[origin] + own for origin, own in zip(origins, positions, strict=True)])
        )
        with (
            self._cached(split, positions, origins, batch),
            displaced_stack(self._apart, moved, [self._starts[origin].weights for origin in origins]),
            shared_products(self._scorer.model, len(moved)),
        ):
            scores = kernel_outputs(self._scorer.logits(batch), self._outputs)
        return scores.view(len(moved), -1, scores.shape[1])

    def lengths(self, split: Split) -> list[NDArray[np.int64]]:
        """See `Trainable.lengths`: tokens."""
        return [start.texts[split].lengths for start in self._starts]

    def _cached(
        self, split: Split, positions: Sequence[Positions], origins: Sequence[int], batch: Batch
    ) -> AbstractContextManager[None]:
        if not self._starts[0].prefixes:
            return nullcontext()
        return reading_together([self._starts[origin].prefixes[split] for origin in origins], positions, batch)


def displaced_stack(
    linears: Sequence[TrackedLinear],
    displacements: Sequence[Displacement],
    starts: Sequence[Mapping[Tensor, Tensor]] | None = None,
) -> AbstractContextManager[None]:
    """Return the context in which modules multiply the s-th of S equal parts of their rows with the weights of cell s.

    Args:
        linears: the modules.
        displacements: S displacements of their parameters; those without one stay where they start.
        starts: S times the parameters that start from another value than the module's own, see `Origin.weights`.
    """
    begins = starts or [{}] * len(displacements)
    forwards: dict[nn.Module, Callable[..., Tensor]] = {}
    for linear in linears:
        stacked = {
            str(kind): _stacked(parameter, f"{linear.name}.{kind}", displacements, begins)
            for kind, parameter in linear.named_parameters()
        }
        forwards[linear.module] = partial(_stacked_forward, linear, stacked, len(displacements))
    return replaced_forwards(forwards)


def _stacked(
    parameter: Tensor, name: str, displacements: Sequence[Displacement], starts: Sequence[Mapping[Tensor, Tensor]]
) -> Tensor:
    """Return the values (S, ...) of a parameter in S cells."""
    start = parameter
    if any(parameter in each for each in starts):
        start = torch.stack([each.get(parameter, parameter) for each in starts])
    if name not in displacements[0]:
        return start.expand(len(displacements), *parameter.shape)
    return start + torch.stack([each[name] for each in displacements]).to(start.device)


def _stacked_forward(linear: TrackedLinear, stacked: Mapping[str, Tensor], n_cells: int, inputs: Tensor) -> Tensor:
    """Multiply (S B, ..., d_in), or S B on another axis, with weights (S, ...): the outputs are (S B, ..., d_out)."""
    module = linear.module
    weight: Tensor = stacked.get("weight", module.weight)
    bias: Tensor | None = stacked["bias"][:, None] if "bias" in stacked else module.bias
    rows = by_example(inputs, n_cells, linear.example_axis, linear.name)
    products = rows @ (weight.mT if isinstance(module, nn.Linear) else weight)
    if bias is not None:
        products = products + bias
    return from_examples(products, inputs.shape[:-1], linear.example_axis)
