"""Curvature of the outputs: on the segment from the pretrained weights to the trained ones, and around a point."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finetune.training.run import norm
from finetune.training.trainable import Displacement
from ntk_dist.arrays import FloatArray
from ntk_dist.errors import NonFiniteError
from ntk_dist.jacobian.directional import displaced, second_directional_derivative
from ntk_dist.jacobian.tracked import Groups, TrackedLinear
from ntk_dist.spectrum.hessian_norms import hessian_norms

PLACES = (0.0, 0.5, 1.0)
"""Points on the segment from theta_0 (0) to theta (1) at which the second derivative is taken."""

START_SEED = 0
"""Draws the vector from which the iterations for norms of Hessians start."""


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
    direction = by_group(trained, displacement)
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


@dataclass(frozen=True)
class HessianNorms:
    """Spectral norms of the Hessians of R outputs of m examples in the trained parameters, at one point.

    Attributes:
        norms: (m, R); (m, 1) of nan where weights, outputs or derivatives are not finite.
        residuals: (m, R), those of the iterations, see `ntk_dist.spectrum.symmetric_norm.SymmetricNorm`.
    """

    norms: FloatArray
    residuals: FloatArray


def hessian_norms_at(
    scores: Sequence[Callable[[], Tensor]], trained: Groups, displacement: Mapping[str, Tensor]
) -> HessianNorms:
    """Measure the Hessians of outputs at theta_0 + displacement.

    Args:
        scores: each runs the model on one example and returns its outputs (1, R).
        trained: by group the modules whose parameters are displaced, and differentiated.
        displacement: by group a vector (p_g,).
    """
    try:
        with displaced(trained, displacement):
            found = [hessian_norms(score, trained, seed=START_SEED) for score in scores]
    except NonFiniteError:
        missing = np.full((len(scores), 1), np.nan)
        return HessianNorms(missing, missing)
    norms, residuals = (np.concatenate(each) for each in zip(*found, strict=True))
    return HessianNorms(norms, residuals)


def random_direction(trained: Groups, seed: int) -> dict[str, Tensor]:
    """Return a random unit vector in the space of the trained parameters, by group (p_g,), float64.

    It is a normal one, divided by its norm, so that every direction is equally likely.
    """
    sizes = {group: sum(linear.n_parameters for linear in linears) for group, linears in trained.items()}
    drawn = np.random.default_rng([seed, 1]).standard_normal(sum(sizes.values()))
    vectors = torch.split(torch.from_numpy(drawn / np.linalg.norm(drawn)), list(sizes.values()))
    return dict(zip(sizes, vectors, strict=True))


def by_group(trained: Groups, displacement: Displacement) -> dict[str, Tensor]:
    """Return a displacement as a vector (p_g,) for each group, in the order of `ntk_dist.jacobian.tracked`."""
    return {group: _flat(linears, displacement) for group, linears in trained.items()}


def _flat(linears: Sequence[TrackedLinear], displacement: Displacement) -> Tensor:
    """Return the displacement of some modules as one vector, in the order of `ntk_dist.jacobian.tracked`."""
    names = [f"{linear.name}.{part}" for linear in linears for part, _ in linear.named_parameters()]
    return torch.cat([displacement[name].detach().flatten() for name in names])
