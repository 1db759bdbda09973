"""Per-example products of what a module was called with and the gradients of what it returned."""

import torch
from torch import Tensor, nn

from ntk_dist.jacobian.example_axes import by_example
from ntk_dist.jacobian.tracked import TrackedLinear

_NARROW = 16
"""Columns below which the transposed product, copied afterwards, takes a processor less time (a half to a quarter)."""


def add_call(
    columns: Tensor, linear: TrackedLinear, inputs: Tensor, gradient: Tensor, *, first: bool, scale: float = 1.0
) -> None:
    """Add the gradients of one call to the rows of an output.

    Args:
        columns: (B, parameters of the module); anything at the first call.
        linear: the module.
        inputs: what it was called with.
        gradient: of the output with respect to what it returned.
        first: whether nothing was added yet.
        scale: what the gradient is multiplied by.

    Raises:
        InputLayoutError: the input has no example axis.
    """
    a, b = (by_example(values, len(columns), linear.example_axis, linear.name) for values in (inputs, gradient))
    n_weights = 0
    if linear.weight:
        left, right = (b, a) if isinstance(linear.module, nn.Linear) else (a, b)
        n_weights = linear.module.weight.numel()
        weights = columns[:, :n_weights].view(len(columns), *linear.module.weight.shape)
        _add_products(weights, left.transpose(1, 2), right, first=first, scale=scale)
    if linear.bias:
        _add(columns[:, n_weights:], b.sum(dim=1, dtype=columns.dtype), first=first, scale=scale)


def _add_products(weights: Tensor, left: Tensor, right: Tensor, *, first: bool, scale: float) -> None:
    """Add scale * (left @ right) to weights (B, m, n), summed in the precision of the weights."""
    if _keeps_sums(weights, left, right):
        _add(weights, torch.bmm(left, right, out_dtype=torch.float32), first=first, scale=scale)
        return
    left, right = left.to(weights.dtype), right.to(weights.dtype)
    if not weights.is_cuda and weights.shape[2] < _NARROW < weights.shape[1]:
        _add(weights, (right.transpose(1, 2) @ left.transpose(1, 2)).transpose(1, 2), first=first, scale=scale)
    elif first and scale == 1:
        # written in place: a product that is copied afterwards costs as much again for short examples
        torch.bmm(left, right, out=weights)
    else:
        # what is in the memory before is not read with beta = 0
        weights.baddbmm_(left, right, beta=0 if first else 1, alpha=scale)


def _add(weights: Tensor, values: Tensor, *, first: bool, scale: float) -> None:
    if first:
        torch.mul(values, scale, out=weights)
    else:
        weights.add_(values, alpha=scale)


def _keeps_sums(weights: Tensor, left: Tensor, right: Tensor) -> bool:
    """Tell whether factors can stay in half precision, because the GPU sums their products in single precision."""
    halves = left.dtype == right.dtype and left.dtype in (torch.float16, torch.bfloat16)
    # before torch 2.8, sums in single precision were not available without rounding
    return weights.is_cuda and weights.dtype == torch.float32 and halves and hasattr(torch.ops.aten.bmm, "dtype")
