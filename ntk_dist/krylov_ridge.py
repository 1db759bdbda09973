"""Ridge paths from products with the kernel alone: conjugate gradients for every lambda in one Krylov space."""

from dataclasses import dataclass

import numpy as np

from ntk_dist.kernel_matrix import FloatArray
from ntk_dist.lanczos import LanczosRuns
from ntk_dist.ridge import RidgePath, check_path, dual_path
from ntk_dist.shifted import solve_shifted
from ntk_dist.tile_operator import TileOperator

RIDGE_STEPS = 512
RIDGE_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class KrylovPath:
    """A ridge path from products with the kernel, and how exact it is.

    path: the path; degrees of freedom are nan and leave-one-out residuals None, for they are no products.
    residuals: (L,), |r - (K + lambda I) alpha| / |lambda alpha| over all targets, from a product with K. For a
        positive semidefinite K no relative error of the training residuals lambda alpha exceeds it.
    steps: size of the Krylov space.
    """

    path: RidgePath
    residuals: FloatArray
    steps: int


def krylov_ridge_path(
    K: TileOperator,
    residual: FloatArray,
    lambdas: FloatArray,
    *,
    max_steps: int = RIDGE_STEPS,
    tolerance: float = RIDGE_TOLERANCE,
) -> KrylovPath:
    """Solve (K + lambda I) alpha = r for residual r (M, k) and every one of lambdas (L,), absolute.

    K and K + lambda I have the same Krylov spaces, so that alpha = |r| V (T + lambda I)^{-1} e_1 is for every lambda
    what conjugate gradients arrive at after as many steps (Frommer and Maass, SIAM J. Sci. Comput. 20, 1999), here
    from one Lanczos process with reorthogonalisation for each target. Steps end when for all lambdas the residual is
    below `tolerance` times |lambda alpha|, or after `max_steps`. Raises LambdaError, KernelShapeError.
    """
    residual, lambdas = check_path(residual, lambdas, K.shape[0])
    runs = LanczosRuns(K, residual, max_steps)
    while runs.running and not _converged(runs, lambdas, tolerance):
        runs.advance()
    alphas = np.empty((len(lambdas), *residual.shape))
    for c in range(residual.shape[1]):
        alphas[:, :, c] = runs.lift(c, _coefficients(runs, c, lambdas)).T
    shape = alphas.shape
    # One product for all lambdas and targets.
    images = K.times(alphas.transpose(1, 0, 2).reshape(shape[1], -1)).reshape(shape[1], shape[0], -1).transpose(1, 0, 2)
    missing = residual - images - lambdas[:, None, None] * alphas
    sizes = lambdas * _norms(alphas)
    residuals = np.divide(_norms(missing), sizes, out=np.zeros(len(lambdas)), where=sizes != 0)
    squared_distance = np.maximum(np.einsum("lmk,lmk->l", alphas, images), 0.0)
    path = dual_path(alphas, squared_distance, np.full(len(lambdas), np.nan), lambdas)
    return KrylovPath(path, residuals, runs.steps)


def _converged(runs: LanczosRuns, lambdas: FloatArray, tolerance: float) -> bool:
    """Tell whether all systems are solved, from the residual that the recurrence knows without a product."""
    if not runs.steps:
        return False
    left, sizes = np.zeros(len(lambdas)), np.zeros(len(lambdas))
    for c, coupling in enumerate(runs.next_norms):
        if runs.lengths[c]:
            Y = _coefficients(runs, c, lambdas)
            left += (coupling * Y[-1]) ** 2
            sizes += (Y**2).sum(axis=0)
    # Not <= everywhere, because a singular system, which is nan, gets no better.
    return not bool((np.sqrt(left) > tolerance * lambdas * np.sqrt(sizes)).any())


def _coefficients(runs: LanczosRuns, c: int, lambdas: FloatArray) -> FloatArray:
    """Return |r| (T + lambda I)^{-1} e_1 for target c and all lambdas, (steps, L)."""
    diagonal, off = runs.tridiagonal(c)
    first = np.zeros((len(diagonal), 1))
    first[:1] = runs.norms[c]
    solved = [solve_shifted(diagonal, off, first, float(value)) for value in lambdas] if len(diagonal) else []
    return np.hstack(solved) if solved else np.zeros((0, len(lambdas)))


def _norms(values: FloatArray) -> FloatArray:
    norms: FloatArray = np.sqrt(np.einsum("lmk,lmk->l", values, values))
    return norms
