"""Spectral norms of the Hessians of a batch's scores in the tracked parameters, from products with them alone."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ntk_dist.arrays import FloatArray
from ntk_dist.jacobian.directional import check_finite, plain_scores
from ntk_dist.jacobian.places import places, replaced
from ntk_dist.jacobian.tracked import Groups, check_groups
from ntk_dist.spectrum.symmetric_norm import SymmetricNorm, symmetric_norm


@torch.inference_mode(mode=False)
def hessian_norms(score: Callable[[], Tensor], groups: Groups, *, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return the spectral norm of the Hessian of every score, and its residual as `SymmetricNorm` has it, each (B, R).

    The product with a vector v is the gradient of <gradient, v> (Pearlmutter, Neural Computation 1994). Residuals
    are below the square root of the rounding unit of the parameters' dtype, 3e-4 in float32 and 1.5e-8 in float64,
    unless `MOST_PRODUCTS` come first. Norms are exactly 0 where a score is linear in the parameters. Attention runs in
    its plain form, as for `second_directional_derivative`.

    Args:
        score: runs the model, in eval mode, on the batch and returns (B, R) scores; called once. As each score is
            differentiated through the whole batch, batches of one example are the fastest.
        groups: the tracked modules by group.
        seed: draws the vector from which the iterations start.

    Raises:
        NonFiniteError: a score, or a product with a Hessian, is NaN or infinite.
        NtkError: the scores are not a matrix, or a tracked parameter is computed from others.
        TiedWeightsError: a parameter is tracked twice.
    """
    check_groups(groups)
    at = places(groups)
    with torch.enable_grad():
        # copied: a tensor made in inference mode takes no part in a backward pass
        parameters = [place.parameter.detach().clone().requires_grad_() for place in at]
        with replaced(at, parameters):
            scores = plain_scores(score)
        found = [_norm(each, parameters, seed) for each in scores.flatten()]
    values = np.array([(each.value, each.residual) for each in found]).reshape(*scores.shape, 2)
    return values[..., 0], values[..., 1]


def _norm(score: Tensor, parameters: Sequence[Tensor], seed: int) -> SymmetricNorm:
    """Return the norm of one score's Hessian; where nothing is left to differentiate, the score is linear."""
    if not score.requires_grad:
        return SymmetricNorm(0.0, 0.0)
    gradient = _flat(torch.autograd.grad(score, parameters, create_graph=True, materialize_grads=True))
    if not gradient.requires_grad:
        return SymmetricNorm(0.0, 0.0)

    def product(vector: Tensor) -> Tensor:
        along = gradient @ vector.to(gradient)
        image = _flat(torch.autograd.grad(along, parameters, retain_graph=True, materialize_grads=True)).double()
        check_finite(image[None], "a product with a Hessian")
        return image

    start = torch.from_numpy(np.random.default_rng(seed).standard_normal(len(gradient))).to(gradient.device)
    return symmetric_norm(product, start, tolerance=torch.finfo(gradient.dtype).eps ** 0.5)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
