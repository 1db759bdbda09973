"""Dense Hessians by plain autograd, a row at a time."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def dense_hessian(score: Callable[[], Tensor], parameters: Sequence[Tensor]) -> np.ndarray:
    """Return the matrix (p, p) of second derivatives of a number in some parameters, at their values."""
    required = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        gradient = _flat(torch.autograd.grad(score(), parameters, create_graph=True, materialize_grads=True))
    rows = [
        _flat(torch.autograd.grad(each, parameters, retain_graph=True, materialize_grads=True)) for each in gradient
    ]
    for parameter, before in zip(parameters, required, strict=True):
        parameter.requires_grad_(before)
    return torch.stack(rows).numpy()


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
