"""The linearized model without Jacobian rows: outputs f_0 + J d by products with J, for layer sets of any size."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.data.targets import kernel_outputs
from finetune.data.tokens import TokenizedTexts
from finetune.errors import ProcessGroupError
from finetune.model.prefix import PrefixCache
from finetune.model.scorer import Scorer
from finetune.training.trainable import Displacement, Positions, Split, unmoved
from ntk_dist.jacobian.linearization import Linearization
from ntk_dist.kernel.features import OutputMode


class LinearizedProducts:
    """f_0(x) + J(x) d, equal to `finetune.training.linearized.LinearizedModel` up to rounding, without storing J.

    A batch goes through the model at theta_0 once; every cell then takes one product J d, and J^T g on the way back.

    Args:
        scorer: the model; its weights are never changed.
        groups: names of the groups that are trained.
        texts: the examples by split.
        outputs: which outputs are trained.
        n_cells: number S of stacked cells.
        initial: by split (n, R), f_0.
        prefixes: by split, the filled caches of what leaves the frozen layers; none runs them at every step.

    Raises:
        ProcessGroupError: the model is sharded.
    """

    def __init__(
        self,
        scorer: Scorer,
        groups: Sequence[str],
        texts: Mapping[Split, TokenizedTexts],
        outputs: OutputMode,
        n_cells: int,
        *,
        initial: Mapping[Split, Tensor],
        prefixes: Mapping[Split, PrefixCache] | None = None,
    ) -> None:
        if scorer.is_sharded:
            raise ProcessGroupError(
                "products with the Jacobian cannot be taken from a model that is sharded over processes, which "
                "releases each layer's weights before they are differentiated a second time; set "
                "finetune.linearization: rows, with a larger memory budget"
            )
        self._scorer = scorer
        self._groups = {group: scorer.groups[group] for group in groups}
        self._texts = texts
        self._outputs = outputs
        self._initial = initial
        self._prefixes = prefixes or {}
        self.displacements = unmoved([linear for linears in self._groups.values() for linear in linears], n_cells)
        self.origins = [0] * n_cells

    def outputs(self, split: Split, positions: Sequence[Positions], cells: list[int]) -> Tensor:
        """See `Trainable.outputs`."""
        (of_origin,) = positions
        chosen = np.asarray(of_origin, dtype=np.int64)
        passes = [self._pass(split, together) for together in self._scorer.at_once(chosen)]
        linearization = Linearization(lambda: torch.cat([each() for each in passes]), self._groups)
        changes = [_times(linearization, self.displacements[cell]) for cell in cells]
        moved = torch.stack(changes)
        return self._initial[split][torch.from_numpy(chosen)].to(moved.device) + moved

    def _pass(self, split: Split, positions: NDArray[np.int64]) -> Callable[[], Tensor]:
        """Return a function that runs the model at theta_0 on some examples at once."""
        batch = self._texts[split].batch(positions)

        def scores() -> Tensor:
            cached = self._prefixes[split].reading(positions, batch) if split in self._prefixes else nullcontext()
            with cached:
                return kernel_outputs(self._scorer.logits(batch), self._outputs)

        return scores

    def lengths(self, split: Split) -> list[NDArray[np.int64]]:
        """See `Trainable.lengths`: tokens."""
        return [self._texts[split].lengths]


def _times(linearization: Linearization, displacement: Displacement) -> Tensor:
    product: Tensor = _Product.apply(linearization, *displacement.values())  # type: ignore[no-untyped-call]
    return product


class _Product(torch.autograd.Function):
    """J d with the backward pass J^T g, both from one graph at theta_0, so that d needs none through the model."""

    @staticmethod
    def forward(ctx: Any, linearization: Linearization, *direction: Tensor) -> Tensor:
        ctx.linearization = linearization
        return linearization.times(direction)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.linearization.transposed_times(gradient)
