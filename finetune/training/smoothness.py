"""How curved the outputs are on the way from the pretrained weights to the trained ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.scorer import Scorer
from finetune.targets import kernel_outputs
from finetune.training.run import norm
from finetune.training.trainable import Displacement
from ntk_dist.batches import Batch
from ntk_dist.directional import directional_derivative, displaced, second_directional_derivative
from ntk_dist.features import OutputMode
from ntk_dist.tracked import TrackedLinear

PLACES = (0.0, 0.5, 1.0)
"""Where on the segment from theta_0 (0) to theta (1) the second derivative is taken."""


@dataclass(frozen=True)
class Smoothness:
    """What a few examples say of the segment from theta_0 to theta = theta_0 + delta.

    f are all outputs of the examples together, norms are Euclidean over them.

    Attributes:
        curvature: b, the largest |d^2 f / dt^2| at `PLACES` of theta_0 + t delta, over |delta|^2; nan if nothing moved.
        linearization_error: |f(theta) - f(theta_0) - J delta|, which is at most (b/2)|delta|^2 with the largest b of
            the whole segment (Taylor's formula with the integral remainder).
    """

    curvature: float
    linearization_error: float


def smoothness(
    scorer: Scorer, groups: Sequence[str], batch: Batch, outputs: OutputMode, displacement: Displacement
) -> Smoothness:
    """Measure the curvature of a batch's outputs along a displacement of the parameters of some groups, exactly."""
    trained = {group: scorer.trained[group] for group in groups}
    direction = {group: _flat(linears, displacement) for group, linears in trained.items()}

    def score() -> Tensor:
        return kernel_outputs(scorer.logits(batch), outputs)

    initial, slope = directional_derivative(score, trained, direction)
    with torch.no_grad(), displaced(trained, direction):
        moved = score()
    curvatures = []
    for place in PLACES:
        with displaced(trained, {group: place * vector for group, vector in direction.items()}):
            curvatures.append(second_directional_derivative(score, trained, direction)[2])
    squared = norm(displacement) ** 2
    largest = max(float(curvature.double().norm()) for curvature in curvatures)
    error = float((moved.double() - initial.double() - slope.double()).norm())
    return Smoothness(largest / squared if squared else float("nan"), error)


def _flat(linears: Sequence[TrackedLinear], displacement: Displacement) -> Tensor:
    """Return the displacement of some modules as one vector, in the order of `ntk_dist.tracked`."""
    names = [f"{linear.name}.{part}" for linear in linears for part, _ in linear.named_parameters()]
    return torch.cat([displacement[name].detach().flatten() for name in names])
