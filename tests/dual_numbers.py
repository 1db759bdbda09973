"""A reference: the derivative of a batch's scores along a direction in parameter space, by forward mode.

One pass with dual numbers, which takes about three times a plain one, for any number of outputs: without vmap, which
attention masks break, without differences, and without the backward passes on which everything in `ntk_dist` rests.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntk_dist.jacobian.places import places, replaced
from ntk_dist.jacobian.tracked import Groups


def directional_derivative(
    score: Callable[[], Tensor], groups: Groups, direction: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Scores (B, R) of a batch and J v (B, R), for v one vector (p_g,) a group, in the order of its rows.

    Attention runs in its plain form, since the fused ones know no forward rule. NotImplementedError where another
    operator lacks one.
    """
    at = places(groups)
    vector = torch.cat([direction[name] for name in groups])
    pieces = vector.split([place.parameter.numel() for place in at])
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        duals = [
            forward_ad.make_dual(place.parameter.detach(), piece.view(place.parameter.shape).to(place.parameter))
            for place, piece in zip(at, pieces, strict=True)
        ]
        with replaced(at, duals):
            scores, slope = forward_ad.unpack_dual(score())
    return scores, torch.zeros_like(scores) if slope is None else slope
