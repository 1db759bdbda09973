"""A logistic probe fitted again without each of its training examples: all of them at once, by Newton's method."""

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from finetune.analysis.left_out import LeftOut
from finetune.errors import ProbeError
from ntk_dist.arrays import FloatArray

# Entries of logits held at a time: 32 MiB.
_CHUNK = 2**22
_MOST_STEPS = 100
_MOST_PRODUCTS = 500
_MOST_HALVINGS = 40
_TOLERANCE = 1e-12
"""Tolerance of the gradient, relative to the sum of the terms that cancel in it."""
_ROUNDING = 1e-8
"""Size below which a gradient counts as zero if rounding keeps it from becoming smaller."""


def logistic_refits(
    features: FloatArray,
    labels: NDArray[np.integer],
    weight: FloatArray,
    bias: FloatArray,
    *,
    l2_penalty: float,
) -> LeftOut:
    """Return the changes of the logits when the probe is fitted without an example, by n refits from the probe on.

    They minimize what `finetune.analysis.probe.fit_head` does: the summed cross-entropy + l2_penalty/2 |W|^2, or for
    two classes + l2_penalty |W|^2, because those share out the weights of one log-odds.

    Args:
        features: (n, d) inputs of the head, more than one example of every class.
        labels: (n,) classes.
        weight: (C, d), of the fitted probe.
        bias: (C,), of the fitted probe.
        l2_penalty: strength of the L2 penalty, above 0.

    Raises:
        ProbeError: a refit does not converge.
    """
    mean = features.mean(axis=0)
    vectors, s, basis = scipy.linalg.svd(features - mean, full_matrices=False)
    # Weights outside of what the examples span are zero, with and without any of them.
    inputs = np.hstack([vectors * s, np.ones((len(features), 1))])
    theta = np.hstack([weight @ basis.T, (bias + weight @ mean)[:, None]])
    refits = _Refits(inputs, labels, theta, l2_penalty * (2 if len(weight) == 2 else 1))
    n, C = len(features), len(weight)
    step = max(1, _CHUNK // (C * n))
    others = np.concatenate([refits.without(np.arange(first, min(first + step, n))) for first in range(0, n, step)])
    return LeftOut(inputs, theta - others, np.broadcast_to(np.eye(C), (n, C, C)))


class _Refits:
    """Probes theta (m, C, q), each fitted without one example; q inputs, the last one the intercept."""

    def __init__(self, inputs: FloatArray, labels: NDArray[np.integer], theta: FloatArray, l2_penalty: float) -> None:
        self._inputs = inputs
        self._theta = theta
        self._one_hot = np.eye(len(theta))[:, labels]
        self._l2_penalty = np.full(inputs.shape[1], l2_penalty)
        self._l2_penalty[-1] = 0.0
        p = _softmax(theta @ inputs.T)
        # The diagonal of the Hessian at the probe, nearly that of every refit in the basis of the singular vectors.
        self._diagonal = (p * (1 - p)) @ inputs**2 + self._l2_penalty
        self._diagonal += np.finfo(np.float64).eps * self._diagonal.max()
        self._scale = self._norm((np.abs(p - self._one_hot) @ np.abs(inputs))[None])[0]

    def without(self, examples: NDArray[np.integer]) -> FloatArray:
        """Return the probes fitted without each of m examples, (m, C, q)."""
        theta = np.repeat(self._theta[None], len(examples), axis=0)
        p, gradient = self._state(theta, examples)
        size = self._norm(gradient)
        for _ in range(_MOST_STEPS):
            moving = size > _TOLERANCE * self._scale
            if not moving.any():
                break
            step = np.where(moving[:, None, None], self._newton_step(p, gradient, examples), 0.0)
            for _ in range(_MOST_HALVINGS):
                p, gradient = self._state(theta + step, examples)
                shrunk = self._norm(gradient) < size
                if (shrunk | ~moving).all():
                    break
                step[~shrunk] /= 2
            else:  # rounding lets the others become no smaller
                step[~shrunk] = 0.0
                p, gradient = self._state(theta + step, examples)
            theta = theta + step
            before, size = size, self._norm(gradient)
            if not (size < before).any():
                break
        if not (size <= _ROUNDING * self._scale).all():
            raise ProbeError(
                "the logistic probe without one of its training examples does not converge; raise its penalty, or take "
                "a ridge head"
            )
        # The same number added to every logit changes no probability: the sum of the intercepts stays what it was.
        theta[:, :, -1] += (self._theta[:, -1].sum() - theta[:, :, -1].sum(axis=1, keepdims=True)) / len(self._theta)
        return theta

    def _state(self, theta: FloatArray, examples: NDArray[np.integer]) -> tuple[FloatArray, FloatArray]:
        """Return probabilities (m, C, n), zero for the example that is left out, and gradients (m, C, q)."""
        p = _softmax(theta @ self._inputs.T)
        left = p - self._one_hot
        for values in (p, left):
            values[np.arange(len(examples)), :, examples] = 0.0
        gradient = left @ self._inputs + self._l2_penalty * theta
        # What rounding leaves along the intercepts' common shift, which the loss does not see, no step could take away.
        gradient[:, :, -1] -= gradient[:, :, -1].mean(axis=1, keepdims=True)
        return p, gradient

    def _newton_step(self, p: FloatArray, gradient: FloatArray, examples: NDArray[np.integer]) -> FloatArray:
        """Return about -H^{-1} gradient for the Hessian H of each refit, by preconditioned conjugate gradients."""
        x = np.zeros_like(gradient)
        residual = -gradient
        z = residual / self._diagonal
        direction, product = z, _dot(residual, z)
        # The closer the gradient is to zero, the more exact the step: convergence is quadratic in the end.
        wanted = product * np.minimum(0.01, np.sqrt(product) / self._scale) ** 2
        wanted = np.maximum(wanted, (_TOLERANCE / 10 * self._scale) ** 2)
        for _ in range(_MOST_PRODUCTS):
            unsolved = product > wanted
            if not unsolved.any():
                break
            image = self._hessian_times(p, direction)
            curvature = _dot(direction, image)
            length = np.where(unsolved & (curvature > 0), product / np.where(curvature > 0, curvature, 1.0), 0.0)
            x += length[:, None, None] * direction
            residual = residual - length[:, None, None] * image
            z = residual / self._diagonal
            following = np.where(unsolved, _dot(residual, z), product)
            ratio = np.divide(following, product, out=np.zeros_like(product), where=product > 0)
            direction = z + ratio[:, None, None] * direction
            product = following
        return x

    def _hessian_times(self, p: FloatArray, direction: FloatArray) -> FloatArray:
        logits = direction @ self._inputs.T
        changed = p * (logits - (p * logits).sum(axis=1, keepdims=True))
        products: FloatArray = changed @ self._inputs + self._l2_penalty * direction
        return products

    def _norm(self, gradient: FloatArray) -> FloatArray:
        norms: FloatArray = np.sqrt(_dot(gradient, gradient / self._diagonal))
        return norms


def _softmax(logits: FloatArray) -> FloatArray:
    """Return probabilities over the classes of logits (..., C, n)."""
    powers = np.exp(logits - logits.max(axis=-2, keepdims=True))
    probabilities: FloatArray = powers / powers.sum(axis=-2, keepdims=True)
    return probabilities


def _dot(first: FloatArray, second: FloatArray) -> FloatArray:
    products: FloatArray = np.einsum("mcq,mcq->m", first, second)
    return products
