"""What can be trained: outputs as a function of displacements from the pretrained point, several cells at once."""

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Split = Literal["train", "eval"]
Displacement = dict[str, Tensor]
"""theta - theta_0 of one cell by parameter, in the parameters' shapes."""


class Trainable(Protocol):
    """A model whose trained parameters are theta_0 plus the displacement of a cell.

    Attributes:
        displacements: one a cell; leaves that require a gradient, zero at first.
    """

    displacements: list[Displacement]

    def outputs(self, split: Split, positions: NDArray[np.integer], cells: list[int]) -> Tensor:
        """Outputs (S, B, R) of S of the cells for the B examples at `positions` of a split, with their graph."""

    def lengths(self, split: Split) -> NDArray[np.int64]:
        """(n,) what the examples of a split cost, for batches of examples that cost alike."""
