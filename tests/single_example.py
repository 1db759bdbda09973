"""The reference: Jacobian rows of one example at a time by plain autograd on the parameters themselves."""

from collections.abc import Callable

import torch
from torch import Tensor

from ntk_dist.jacobian.tracked import Groups


def reference_rows(scores: Callable[[int], Tensor], n: int, groups: Groups) -> dict[str, Tensor]:
    """Rows (n, R, p_g) of every group; `scores(i)` gives the (1, R) scores of example i alone."""
    parameters = [p for linears in groups.values() for linear in linears for p in linear.parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    rows = []
    for i in range(n):
        outputs = scores(i)
        gradients = [
            torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True) for output in outputs[0]
        ]
        rows.append([[zeros_for(g, p) for g, p in zip(row, parameters, strict=True)] for row in gradients])
    for parameter in parameters:
        parameter.requires_grad_(False)
    result, start = {}, 0
    for name, linears in groups.items():
        end = start + sum(len(linear.parameters) for linear in linears)
        result[name] = torch.stack(
            [torch.stack([torch.cat([*row[start:end], torch.zeros(0)]) for row in example]) for example in rows]
        )
        start = end
    return result


def zeros_for(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return (torch.zeros_like(parameter) if gradient is None else gradient).flatten()


def relative_error(rows: Tensor, reference: Tensor) -> float:
    """Norm of the difference over the norm of the reference."""
    if reference.norm() == 0:
        return float(rows.norm())
    return float((rows.double() - reference.double()).norm() / reference.double().norm())
