"""Ways to hold weights near the pretrained ones, each as a change of the gradient or of the step.

Displacements are theta - theta_0 by parameter, so that everything here is anchored at the true theta_0, also where that
is not zero, as for LoRA's A. Strengths are lambda / n, that of the objective divided by the number of examples, but for
`project`, which takes lambda as it is.

Each function returns the number of tensors whose gradient or value it changed: 0 where nothing has moved yet. The
number is a tensor () on the device of the displacements, so that the host does not wait for a GPU.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def pull(displacement: Tensors, strength: float) -> Tensor:
    """Add the gradient of (strength/2) |theta - theta_0|^2 to the gradients: L2-SP (arXiv 1802.01483)."""
    for tensor in displacement.values():
        _gradient(tensor).add_(tensor.detach(), alpha=strength)
    return _moved(displacement) if strength else _none(displacement)


def pull_selectively(displacement: Tensors, strength: float) -> Tensor:
    """Do as `pull` while <grad R(theta), theta - theta_0> >= 0 over all parameters together, else nothing.

    Equation 8 of arXiv 2602.08239. A step toward theta_0 changes R by -<grad R, theta - theta_0> to first order: the
    pull is there only where it does not make R larger. That is where a step of descent on R leads back to theta_0 too;
    while descent leads away nothing holds the weights. The gradients must be those of R alone.
    """
    products = [torch.sum(_gradient(tensor) * tensor.detach()).double() for tensor in displacement.values()]
    leads_back = sum(products, torch.zeros_like(products[0])) >= 0
    for tensor in displacement.values():
        gradient = _gradient(tensor)
        gradient.copy_(torch.where(leads_back, torch.add(gradient, tensor.detach(), alpha=strength), gradient))
    return _moved(displacement) * leads_back if strength else _none(displacement)


@torch.no_grad()
def decay(displacement: Tensors, before: Tensors, strength: float, learning_rate: float) -> Tensor:
    """Take learning_rate * strength * (theta - theta_0) from the weights, independently of the optimizer.

    Decoupled weight decay (arXiv 1711.05101) with theta_0 in the place of 0.

    Args:
        displacement: after the optimizer's step; changed in place.
        before: before that step.
        strength: lambda / n.
        learning_rate: of this step.
    """
    for name, tensor in displacement.items():
        tensor.sub_(before[name], alpha=learning_rate * strength)
    return _moved(before) if learning_rate * strength else _none(before)


@torch.no_grad()
def project(displacement: Tensors, before: Tensors, strength: float) -> Tensor:
    """Selective Projection Decay (arXiv 2411.01713), tensor by tensor.

    Where sum(g * (theta - theta_0)) > 0 before the step, the new theta~ becomes
    theta~ - strength * rho * (theta~ - theta_0), where rho, cut to [0, 1], is
    (|theta~ - theta_0| - |theta - theta_0|) / |theta~ - theta_0|: at strength 1 it comes back to the sphere around
    theta_0 on which it was.

    Args:
        displacement: theta~ - theta_0, after the optimizer's step, with the gradients g of that step; changed in place.
        before: theta - theta_0, before it.
        strength: lambda.
    """
    changed = _none(displacement)
    for name, tensor in displacement.items():
        new, old = tensor.norm().double(), before[name].norm().double()
        comes_back = (torch.sum(_gradient(tensor) * before[name]) > 0) & (new > old)
        tensor.mul_(torch.where(comes_back, 1 - strength * (new - old) / new, 1.0))
        changed = changed + comes_back
    return changed if strength else _none(displacement)


def _moved(displacement: Tensors) -> Tensor:
    """Return how many tensors are not zero."""
    return torch.stack([tensor.detach().any() for tensor in displacement.values()]).sum()


def _none(displacement: Tensors) -> Tensor:
    tensor = next(iter(displacement.values()))
    return torch.zeros((), dtype=torch.int64, device=tensor.device)


def _gradient(tensor: Tensor) -> Tensor:
    """The gradient of a displacement, zeros if the loss does not depend on it."""
    if tensor.grad is None:
        tensor.grad = torch.zeros_like(tensor)
    return tensor.grad
