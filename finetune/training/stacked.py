"""The model itself with the weights of several cells: one batch goes through all of them, frozen weights are shared.

A batch is repeated for each cell. Every trained module multiplies the rows of a cell with that cell's weights, in one
batched product; all else does not know that there are several.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from finetune.prefix import PrefixCache
from finetune.scorer import Scorer
from finetune.targets import kernel_outputs
from finetune.tokens import TokenizedTexts
from finetune.training.trainable import Displacement, Split, unmoved
from ntk_dist.features import OutputMode
from ntk_dist.tracked import TrackedLinear


class StackedModel:
    """A scorer's model with S displacements of the trained modules of some groups.

    Args:
        scorer: the model; its own weights are never changed.
        groups: names of the groups that are trained.
        texts: the examples by split.
        outputs: which outputs are trained.
        n_cells: cells S.
        prefixes: by split, the filled caches of what leaves the frozen layers; none runs them at every step.
    """

    def __init__(
        self,
        scorer: Scorer,
        groups: Sequence[str],
        texts: Mapping[Split, TokenizedTexts],
        outputs: OutputMode,
        n_cells: int,
        *,
        prefixes: Mapping[Split, PrefixCache] | None = None,
    ) -> None:
        self.linears = [linear for group in groups for linear in scorer.trained[group]]
        self._scorer = scorer
        self._texts = texts
        self._outputs = outputs
        self._prefixes = prefixes or {}
        self.displacements = unmoved(self.linears, n_cells)

    def outputs(self, split: Split, positions: NDArray[np.integer], cells: list[int]) -> Tensor:
        """See `Trainable.outputs`."""
        repeated = np.tile(np.asarray(positions), len(cells))
        batch = self._texts[split].batch(repeated)
        cached = self._prefixes[split].reading(repeated, batch) if split in self._prefixes else nullcontext()
        with cached, displaced_stack(self.linears, [self.displacements[cell] for cell in cells]):
            scores = kernel_outputs(self._scorer.logits(batch), self._outputs)
        return scores.view(len(cells), len(positions), -1)

    def lengths(self, split: Split) -> NDArray[np.int64]:
        """See `Trainable.lengths`: tokens."""
        return self._texts[split].lengths


@contextmanager
def displaced_stack(linears: Sequence[TrackedLinear], displacements: Sequence[Displacement]) -> Iterator[None]:
    """Have modules multiply the s-th of S equal parts of their input's rows with the s-th cell's weights.

    Args:
        linears: the modules.
        displacements: S displacements of their parameters.
    """
    try:
        for linear in linears:
            stacked = {
                str(kind): parameter + torch.stack([each[f"{linear.name}.{kind}"] for each in displacements])
                for kind, parameter in linear.named_parameters()
            }
            # An attribute of the instance comes before the method of its class.
            linear.module.__dict__["forward"] = partial(_stacked_forward, linear.module, stacked, len(displacements))
        yield
    finally:
        for linear in linears:
            linear.module.__dict__.pop("forward", None)


def _stacked_forward(module: nn.Linear | Conv1D, stacked: Mapping[str, Tensor], n_cells: int, inputs: Tensor) -> Tensor:
    """Multiply (S B, ..., d_in) with weights (S, ...): the outputs are (S B, ..., d_out)."""
    weight: Tensor = stacked.get("weight", module.weight)
    bias: Tensor | None = stacked["bias"][:, None] if "bias" in stacked else module.bias
    rows = inputs.reshape(n_cells, -1, inputs.shape[-1])
    products = rows @ (weight.mT if isinstance(module, nn.Linear) else weight)
    if bias is not None:
        products = products + bias
    return products.reshape(*inputs.shape[:-1], products.shape[-1])
