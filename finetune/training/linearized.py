"""The linearized model: outputs f_0 + J d, with the Jacobian rows that also give the kernel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.training.trainable import Displacement, Positions, Split
from ntk_dist.jacobian.tracked import TrackedLinear


@dataclass(frozen=True, eq=False)
class LinearRows:
    """Initial outputs and Jacobian rows of a split, which give its linearization.

    Attributes:
        initial: (n, R), f_0.
        jacobian: (n, R, p), columns in the order of `ntk_dist.jacobian.tracked`, group after group.
    """

    initial: Tensor
    jacobian: Tensor


class LinearizedModel:
    """f_0(x) + J(x) d: exact Jacobian-vector products, one matrix product for all cells.

    Parameters whose gradient is zero at the pretrained point, as LoRA's A where B is zero, do not move: neither the
    loss nor a regularizer pulls at them.

    Args:
        rows: by split.
        linears: the tracked modules in the order of the columns.
        n_cells: number S of stacked cells.
    """

    def __init__(self, rows: Mapping[Split, LinearRows], linears: Sequence[TrackedLinear], n_cells: int) -> None:
        self._rows = rows
        dtype = rows["train"].jacobian.dtype
        shapes = {
            f"{linear.name}.{kind}": parameter.shape
            for linear in linears
            for kind, parameter in linear.named_parameters()
        }
        self.displacements: list[Displacement] = [
            {name: torch.zeros(shape, dtype=dtype, requires_grad=True) for name, shape in shapes.items()}
            for _ in range(n_cells)
        ]
        self.origins = [0] * n_cells

    def outputs(self, split: Split, positions: Sequence[Positions], cells: list[int]) -> Tensor:
        """See `Trainable.outputs`."""
        rows = self._rows[split]
        (of_origin,) = positions
        chosen = torch.from_numpy(np.asarray(of_origin, dtype=np.int64))
        d = torch.stack([torch.cat([part.flatten() for part in self.displacements[cell].values()]) for cell in cells])
        jacobian = rows.jacobian[chosen]
        change = d @ jacobian.flatten(0, 1).T
        return rows.initial[chosen] + change.view(len(cells), *jacobian.shape[:2])

    def lengths(self, split: Split) -> list[NDArray[np.int64]]:
        """See `Trainable.lengths`: all examples cost the same."""
        return [np.ones(len(self._rows[split].initial), dtype=np.int64)]
