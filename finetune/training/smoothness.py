"""Curvature of the outputs on the segment from the pretrained weights to the trained ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.training.run import norm
from finetune.training.trainable import Displacement
from ntk_dist.jacobian.directional import displaced, second_directional_derivative
from ntk_dist.jacobian.tracked import TrackedLinear

PLACES = (0.0, 0.5, 1.0)
"""Points on the segment from theta_0 (0) to theta (1) at which the second derivative is taken."""


@dataclass(frozen=True)
class Smoothness:
    """Curvature and linearization error on the segment from theta_0 to theta = theta_0 + delta, for a few examples.

    f are all outputs of the examples together, norms are Euclidean over them.

    Attributes:
        curvature: b, the largest |d^2 f / dt^2| at `PLACES` of theta_0 + t delta, over |delta|^2; nan if nothing moved.
        linearization_error: |f(theta) - f(theta_0) - J delta|, which is at most (b/2)|delta|^2 with the largest b of
            the whole segment (Taylor's formula with the integral remainder).
    """

    curvature: float
    linearization_error: float


def smoothness(
    score: Callable[[], Tensor], trained: Mapping[str, Sequence[TrackedLinear]], displacement: Displacement
) -> Smoothness:
    """Measure the curvature of outputs along a displacement, exactly.

    Args:
        score: runs the model on a few examples and returns their outputs (m, R).
        trained: by group the modules whose parameters are displaced.
        displacement: theta - theta_0.
    """
    direction = {group: _flat(linears, displacement) for group, linears in trained.items()}
    found = []
    for place in PLACES:
        with displaced(trained, {group: place * vector for group, vector in direction.items()}):
            found.append(second_directional_derivative(score, trained, direction))
    squared = norm(displacement) ** 2
    largest = max(float(curvature.double().norm()) for _, _, curvature in found)
    initial, slope, _ = found[0]
    moved, _, _ = found[-1]
    error = float((moved.double() - initial.double() - slope.double()).norm())
    return Smoothness(largest / squared if squared else float("nan"), error)


def _flat(linears: Sequence[TrackedLinear], displacement: Displacement) -> Tensor:
    """Return the displacement of some modules as one vector, in the order of `ntk_dist.jacobian.tracked`."""
    names = [f"{linear.name}.{part}" for linear in linears for part, _ in linear.named_parameters()]
    return torch.cat([displacement[name].detach().flatten() for name in names])
