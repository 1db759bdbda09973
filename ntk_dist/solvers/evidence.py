"""The evidence of a Gaussian process whose mean is the ridge solution: what the training labels say of a kernel."""

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.ridge import RidgePath


def prior_variance(path: RidgePath, residual: FloatArray) -> FloatArray:
    """Return the tau^2, (L,), that makes the residual r (M, k) most likely: lambda r'(K + lambda I)^-1 r / (M k).

    The prior is f - f_0 ~ N(0, tau^2 K / lambda) with noise of variance tau^2, independent for each of the k targets:
    its mean given the labels is the ridge solution, for every tau.
    """
    sizes: FloatArray = np.einsum("lmk,mk->l", path.train_residuals, residual) / residual.size
    return sizes


def log_evidence(path: RidgePath, residual: FloatArray, eigenvalues: FloatArray) -> FloatArray:
    """Return the log-density of the residual r (M, k) under N(0, tau^2 (K + lambda I) / lambda), (L,).

    -(lambda/2) r'(K + lambda I)^-1 r / tau^2 - (k/2) log |K + lambda I| + (M k/2) log(lambda / (2 pi tau^2)) with the
    tau^2 of `prior_variance` (Rasmussen and Williams 2006, equation 5.8, for noise tau^2 and signal tau^2 / lambda).
    It is nan where the residual is 0, as tau^2 then is.

    Args:
        path: the ridge path.
        residual: r (M, k), as it was given to the path.
        eigenvalues: those of K that may differ from 0, (M,) or fewer; negative ones are rounding and count as 0.
    """
    M, k = residual.shape
    lambdas, tau_squared = path.lambdas, prior_variance(path, residual)
    s = np.maximum(eigenvalues, 0.0)
    log_determinant = np.log(s + lambdas[:, None]).sum(axis=1) + (M - len(s)) * np.log(lambdas)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.log(np.where(tau_squared > 0, lambdas / (2 * np.pi * tau_squared), np.nan))
    result: FloatArray = -M * k / 2 - k / 2 * log_determinant + M * k / 2 * scale
    return result
