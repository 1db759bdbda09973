"""Branches beside linear modules that add nothing yet: y_t = W x_t + s B A x_t where B = 0.

There what the model returns, and the gradient b_t at y_t, are those of W x_t alone. The gradient with respect to B is
s sum_t b_t (A x_t)^T, and the one with respect to A is zero. So the rows come from a model that runs without its
branches, forward and backward, and from one product with A a module.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ntk_dist.jacobian.forwards import is_replaced


@dataclass(eq=False)
class Branch:
    """A branch s B A beside a linear module.

    Attributes:
        adapted: the module that the model calls, which adds the branch to what `base` returns.
        base: the module beside which the branch stands.
        first: A.
        last: B.
        scale: s.
    """

    adapted: nn.Module
    base: nn.Module
    first: nn.Linear
    last: nn.Linear
    scale: float
    _looked_at: tuple[int, int] | None = field(default=None, init=False)
    _was_zero: bool = field(default=False, init=False)

    def is_idle(self) -> bool:
        """Tell whether the branch adds nothing: B is zero, and no module computes by another function meanwhile."""
        if any(is_replaced(module) for module in (self.adapted, self.base, self.first, self.last)):
            return False
        weight = self.last.weight
        # looking at the values makes the host wait for the device, so it is done once for each change of them
        now = (weight.data_ptr(), weight._version)
        if now != self._looked_at:
            self._was_zero = not bool(weight.any())
            self._looked_at = now
        return self._was_zero

    @torch.no_grad()
    def inputs_of_last(self, inputs: Tensor) -> Tensor:
        """Return A x (..., r), what B is called with where the branch runs."""
        weight = self.first.weight
        return nn.functional.linear(inputs.to(weight.dtype), weight)


def without_branches(branches: Iterable[Branch]) -> dict[nn.Module, Callable[..., Any]]:
    """Return what adapted modules call so that their branches do not run, for `replaced_forwards`."""
    # the module itself, not its `forward`, so that its hooks run
    return {branch.adapted: branch.base.__call__ for branch in branches}
