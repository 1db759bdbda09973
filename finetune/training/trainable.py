"""Interface of trainable models: outputs as a function of displacements from the pretrained point, by cell."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntk_dist.jacobian.tracked import TrackedLinear

Split = Literal["train", "eval"]
Positions = NDArray[np.integer]
Displacement = dict[str, Tensor]
"""theta - theta_0 of one cell by parameter, in the parameters' shapes."""


class Trainable(Protocol):
    """A model whose trained parameters are theta_0 plus the displacement of a cell.

    Attributes:
        displacements: one a cell; leaves that require a gradient, zero at first.
        origins: which of its pretrained points each cell starts from; cells of one see the same examples.
    """

    displacements: list[Displacement]
    origins: list[int]

    def outputs(self, split: Split, positions: Sequence[Positions], cells: list[int]) -> Tensor:
        """Outputs (S, B, R) of S of the cells for B examples of a split, with their graph.

        Args:
            split: which examples.
            positions: for each origin (B,), the examples that its cells take.
            cells: the cells.
        """

    def lengths(self, split: Split) -> list[NDArray[np.int64]]:
        """Return for each origin the costs (n,) of a split's examples, for batches of examples of similar cost."""


def unmoved(linears: Sequence[TrackedLinear], n_cells: int) -> list[Displacement]:
    """Return displacements of zero of the modules' parameters, one a cell, as leaves that require a gradient."""
    return [
        {
            f"{linear.name}.{kind}": torch.zeros_like(parameter, requires_grad=True)
            for linear in linears
            for kind, parameter in linear.named_parameters()
        }
        for _ in range(n_cells)
    ]
