"""Products with the Jacobian of a batch's scores and with its transpose, without its rows.

One forward and one backward pass at theta_0 make a graph that serves any number of products: J^T u is linear in u, and
its own gradient with respect to u along v is J v (Townsend, "A new trick for calculating Jacobian vector products",
2017). Each J v then costs about one plain forward pass, where dual numbers take three, and each J^T u one backward
pass. Both are exact; nothing is differenced.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntk_dist.errors import NonFiniteError, NtkError
from ntk_dist.jacobian.places import places, replaced
from ntk_dist.jacobian.tracked import Groups, check_groups


class Linearization:
    """Scores (B, R) of a batch at theta_0 and their Jacobian J there, as two linear maps.

    Attention runs in its plain form, for the fused ones cannot be differentiated twice; so the scores may differ from
    those of `jacobian_rows` by rounding. The graph, with the activations of both passes, lives as long as the object.

    Args:
        score: runs the model, in eval mode, on the batch and returns (B, R) scores; called once.
        groups: the tracked modules by group.

    Attributes:
        scores: (B, R), detached.

    Raises:
        NonFiniteError: a score is NaN or infinite; names the position in the batch.
        NtkError: the scores are not a matrix, or a tracked parameter is computed from others.
        TiedWeightsError: a parameter is tracked twice.
    """

    @torch.inference_mode(mode=False)
    def __init__(self, score: Callable[[], Tensor], groups: Groups) -> None:
        check_groups(groups)
        at = places(groups)
        with torch.enable_grad():
            self._parameters = [place.parameter.detach().requires_grad_() for place in at]
            with replaced(at, self._parameters), sdpa_kernel(SDPBackend.MATH):
                self._scores = score()
            self.scores = self._scores.detach()
            _check(self.scores)
            self._u = torch.zeros_like(self.scores, requires_grad=True)
            # the product depends on u even where no score depends on a tracked parameter: J is zero then
            self._transposed = torch.autograd.grad(
                (self._u * self._scores).sum(), self._parameters, create_graph=True, materialize_grads=True
            )

    def times(self, direction: Sequence[Tensor]) -> Tensor:
        """Return J v (B, R), detached.

        Args:
            direction: v, one tensor for each tracked parameter in its shape, in the order of
                `ntk_dist.jacobian.tracked`.
        """
        (product,) = torch.autograd.grad(
            self._transposed, self._u, list(direction), retain_graph=True, materialize_grads=True
        )
        return product

    def transposed_times(self, weights: Tensor) -> tuple[Tensor, ...]:
        """Return J^T u, one tensor for each tracked parameter as in `times`, detached.

        Args:
            weights: u, (B, R).
        """
        if not self._scores.requires_grad:
            return tuple(torch.zeros_like(parameter) for parameter in self._parameters)
        return torch.autograd.grad(
            self._scores, self._parameters, weights.detach(), retain_graph=True, materialize_grads=True
        )


def _check(scores: Tensor) -> None:
    if scores.ndim != 2:
        raise NtkError(f"the scores must be (examples, outputs), not of shape {tuple(scores.shape)}")
    bad = ~torch.isfinite(scores).all(dim=1)
    if bool(bad.any()):
        raise NonFiniteError(
            f"a score is NaN or infinite for example {int(bad.nonzero()[0])} of the batch; check its text, or use "
            "dtype float64 if the model overflows"
        )
