"""Predictions of a ridge probe for its training examples when it is fitted without one of them."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ntk_dist.arrays import FloatArray


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Changes of a probe's logits on its n training examples when it is fitted without example i.

    The logits with i minus those without are Phi sum_s directions[i, s] changes[i, s].

    features: Phi, (n, q).
    directions: (n, T, q).
    changes: (n, T, C), of the logits.
    """

    features: FloatArray
    directions: FloatArray
    changes: FloatArray


def ridge_hat(features: FloatArray, targets: FloatArray, l2_penalty: float) -> tuple[FloatArray, FloatArray]:
    """Return a factor Phi (n, q) of the probe's hat matrix H = Phi Phi', and p_i / (1 - H_ii), (n, C).

    H = 11'/n + Pc (Pc'Pc + l2_penalty I)^{-1} Pc' with Pc the centered features, for the intercept has no penalty; p is
    the residual of the probe. Without example i the logits lose H[:, i] p_i / (1 - H_ii), exact also where the penalty
    is so small that 1 - H_ii is. nan for a single example, without which nothing is left to fit.

    Args:
        features: (n, d) inputs of the head.
        targets: (n, C) that the probe is fitted to.
        l2_penalty: strength of the L2 penalty, above 0.
    """
    n, d = features.shape
    mean = np.full((n, 1), 1 / np.sqrt(n))
    if n == 1:
        return mean, np.full(targets.shape, np.nan)
    rotated, s, _ = scipy.linalg.svd(_without_mean(features), full_matrices=False)
    vectors = _with_mean(rotated)
    kept, left = s**2 / (s**2 + l2_penalty), l2_penalty / (s**2 + l2_penalty)
    own_left = (vectors**2) @ left
    residual = vectors @ (left[:, None] * (vectors.T @ targets))
    if n - 1 > d:  # what no feature can reach; otherwise the vectors span all but the mean
        own_left += 1 - 1 / n - (vectors**2).sum(axis=1)
        residual += targets - targets.mean(axis=0) - vectors @ (vectors.T @ targets)
    return np.hstack([mean, vectors * np.sqrt(kept)]), residual / own_left[:, None]


def ridge_left_out(hat_factor: FloatArray, changes: FloatArray) -> LeftOut:
    """Return the changes of the logits, from the results of `ridge_hat`."""
    return LeftOut(hat_factor, hat_factor[:, None, :], changes[:, None, :])


def _reflector(n: int) -> FloatArray:
    """Return w with (I - 2 w w' / w'w) e_1 = (1, ..., 1) / sqrt(n), (n, 1)."""
    w = np.full((n, 1), 1 / np.sqrt(n))
    w[0] -= 1
    return w


def _reflected(matrix: FloatArray) -> FloatArray:
    w = _reflector(len(matrix))
    reflected: FloatArray = matrix - w @ (w.T @ matrix) * (2 / np.vdot(w, w))
    return reflected


def _without_mean(matrix: FloatArray) -> FloatArray:
    """Return (n - 1, d), the centered matrix (n, d) in an orthonormal basis of the vectors orthogonal to the mean."""
    return _reflected(matrix)[1:]


def _with_mean(matrix: FloatArray) -> FloatArray:
    """Return the matrix (n, r) that `_without_mean` maps to (n - 1, r); its columns sum to zero."""
    return _reflected(np.vstack([np.zeros((1, matrix.shape[1])), matrix]))
