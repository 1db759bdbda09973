"""Proven bounds on measured quantities: distance, linearization error, kernels to which a block is added."""

from dataclasses import dataclass

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.errors import NtkError
from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers.ridge import LambdaError
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition

# Backward stable float64 methods err by about M eps times the scale: 2e-11 for M = 100,000 rows, whose kernel takes
# 80 GB. The rest is for the constants in front; a bound that is wrong as a formula fails by far more.
_TOLERANCE = 1e-9


class BoundError(NtkError):
    """A bound was given a number for which it is not proven."""


def ridge_distance_bound(residual_norm: float, lambdas: FloatArray) -> FloatArray:
    """Return |r| / (2 sqrt(lambda)), (L,), a bound of |d| for the minimizer d of (1/2)|J d - r|^2 + (lambda/2)|d|^2.

    |d|^2 is the sum over modes of s / (s + lambda)^2 r_i^2, and s / (s + lambda)^2 <= 1 / (4 lambda) by
    (s - lambda)^2 >= 0, with equality for s = lambda. |r| is the Frobenius norm where d has several targets.
    Raises LambdaError, BoundError.
    """
    _check_magnitudes(residual_norm=residual_norm)
    return residual_norm / (2 * np.sqrt(_positive(lambdas)))


def minimizer_distance_bound(initial_loss: float, lambdas: FloatArray) -> FloatArray:
    """Return sqrt(2 R(theta_0) / lambda), (L,), a bound of |theta - theta_0| for losses R >= 0.

    (lambda/2)|theta - theta_0|^2 <= R(theta) + (lambda/2)|theta - theta_0|^2 <= R(theta_0), for a minimizer as for
    any other theta whose objective is not above that of theta_0. R is the loss that lambda is added to: of a sum
    over examples the sum, of a mean the mean. Raises LambdaError, BoundError.
    """
    _check_magnitudes(initial_loss=initial_loss)
    return np.sqrt(2 * initial_loss / _positive(lambdas))


def linearization_bound(smoothness: float, squared_distance: FloatArray) -> FloatArray:
    """Return (b/2)|theta - theta_0|^2, a bound of |f(theta) - f(theta_0) - J (theta - theta_0)|, elementwise.

    The error is the integral over t in [0, 1] of (J(theta_0 + t delta) - J) delta, whose norm is at most
    b t |delta|^2. `smoothness` is b: |J(theta) - J| <= b |theta - theta_0| in the spectral norm, on the ball of this
    radius; for one output at a time, the Lipschitz constant of its gradient. Raises BoundError.
    """
    _check_magnitudes(smoothness=smoothness, squared_distance=squared_distance)
    return smoothness / 2 * np.asarray(squared_distance, dtype=np.float64)


def minimizer_linearization_bound(smoothness: float, initial_loss: float, lambdas: FloatArray) -> FloatArray:
    """Return b R(theta_0) / lambda, (L,): `linearization_bound` at the distance of `minimizer_distance_bound`."""
    return linearization_bound(smoothness, minimizer_distance_bound(initial_loss, lambdas) ** 2)


@dataclass(frozen=True)
class AddedBlockBounds:
    """Bounds of the extreme eigenvalues of K + S, and an upper bound of cond(K + S + sigma I).

    condition_number_upper is inf where the bounds leave it open whether K + S + sigma I is positive definite.
    """

    sigma_max_lower: float
    sigma_max_upper: float
    sigma_min_lower: float
    sigma_min_upper: float
    condition_number_upper: float


def added_block_bounds(
    *, kernel_max: float, kernel_min: float, block_max: float, block_min: float, sigma: float
) -> AddedBlockBounds:
    """Bound K + S, S a block added to K, by the largest and smallest eigenvalues of both.

    Weyl's inequalities s_i(K) + s_min(S) <= s_i(K + S) <= s_i(K) + s_max(S) (Horn and Johnson, Matrix Analysis,
    theorem 4.3.1) and the same with K and S exchanged. They need no more than symmetry, so eigenvalues that
    rounding left slightly negative are taken as they are. Raises BoundError for sigma < 0 or minima above maxima.
    """
    _check_magnitudes(sigma=sigma)
    if not (kernel_min <= kernel_max and block_min <= block_max):
        raise BoundError(f"no eigenvalues lie in [{kernel_min}, {kernel_max}] and [{block_min}, {block_max}]")
    smallest, largest = kernel_min + block_min, kernel_max + block_max
    return AddedBlockBounds(
        sigma_max_lower=max(kernel_max + block_min, kernel_min + block_max),
        sigma_max_upper=largest,
        sigma_min_lower=smallest,
        sigma_min_upper=min(kernel_min + block_max, kernel_max + block_min),
        condition_number_upper=np.inf if smallest + sigma <= 0 else (largest + sigma) / (smallest + sigma),
    )


def added_block_form_factor(block_max: float, kernel_min: float, lambdas: FloatArray) -> FloatArray:
    """Return 1 / (1 + s_max(S) / (max(0, s_min(K)) + lambda)), (L,): the least q(S) / q(0) of a block S added to K.

    q(S) = r^T (K + S + lambda I)^-1 r, and q(S) <= q(0), since inverses of positive definite matrices are ordered the
    other way round. S <= s_max(S) I <= s_max(S) / (s_min(K) + lambda) (K + lambda I) says how far it can fall. Equality
    for one row. `kernel_min` may be less than s_min(K), by what rounding leaves open. Raises LambdaError, BoundError.
    """
    _check_magnitudes(block_max=block_max)
    return 1 / (1 + block_max / (max(0.0, kernel_min) + _positive(lambdas)))


def first_order_eigenvalues(eigenvectors: FloatArray, eigenvalues: FloatArray, S: FloatArray) -> FloatArray:
    """Return s_i + u_i^T S u_i, (m,), for eigenvectors (M, m) and eigenvalues (m,) of K and a block S (M, M).

    No bound but an estimate: Rayleigh quotients of K + S, never above its largest nor below its smallest eigenvalue.
    One is within |S u_i - (u_i^T S u_i) u_i|^2 / gap of the eigenvalue of K + S nearest to it, gap being its distance
    to all the other ones (Parlett, The Symmetric Eigenvalue Problem, theorem 11.7.1). Where s_i is repeated it is not
    right to first order, unless the u_i diagonalize S within their eigenspace. Raises KernelShapeError.
    """
    M, m = eigenvectors.shape
    if eigenvalues.shape != (m,) or S.shape != (M, M):
        raise KernelShapeError(
            f"eigenvectors {(M, m)} need eigenvalues {(m,)} and a block {(M, M)}, got {eigenvalues.shape}, {S.shape}"
        )
    quotients: FloatArray = eigenvalues + np.einsum("im,im->m", eigenvectors, S @ eigenvectors)
    return quotients


def first_order_extremes(
    eigenvectors: FloatArray, eigenvalues: FloatArray, S: FloatArray, *, resolution: float
) -> tuple[float, float]:
    """Return the smallest and the largest eigenvalue of K + S to first order in S.

    From all eigenvectors (M, M) and ascending eigenvalues (M,) of K, and a block S (M, M). Where an extreme eigenvalue
    is repeated, S decides along which vectors of its eigenspace the eigenvalues part: they change by the eigenvalues of
    U^T S U, U a basis of that space (Kato, Perturbation Theory for Linear Operators, section II.2.3). Eigenvalues
    within `resolution` of an extreme one count as repeated: rounding has mixed their eigenvectors. The two are extreme
    eigenvalues of U^T (K + S) U, and lie between those of K + S. Raises KernelShapeError, BoundError.
    """
    _check_magnitudes(resolution=resolution)
    lowest = int(np.count_nonzero(eigenvalues <= eigenvalues[0] + resolution))
    highest = int(np.count_nonzero(eigenvalues >= eigenvalues[-1] - resolution))
    return (
        _first_order_end(eigenvectors[:, :lowest], eigenvalues[:lowest], S, end=0),
        _first_order_end(eigenvectors[:, -highest:], eigenvalues[-highest:], S, end=highest - 1),
    )


def _first_order_end(space: FloatArray, eigenvalues: FloatArray, S: FloatArray, *, end: int) -> float:
    if S.shape != (len(space), len(space)):
        raise KernelShapeError(f"eigenvectors of {len(space)} rows need a block as large, got {S.shape}")
    if len(eigenvalues) == 1:
        return float(first_order_eigenvalues(space, eigenvalues, S)[0])
    within = space.T @ (S @ space)
    within[np.diag_indices_from(within)] += eigenvalues
    # All eigenvalues, and then the one that is wanted: what LAPACK chooses by place (syevr with range I) may be none
    # where eigenvalues agree to rounding.
    return float(TridiagonalDecomposition(within).eigenvalues[end])


def violation(measured: FloatArray | float, bound: FloatArray | float, scale: FloatArray | float) -> FloatArray:
    """Return the violation of `measured` <= `bound` beyond rounding: 0 where it holds, nan where either is nan.

    All three broadcast. For a lower bound exchange the first two. The tolerance is 1e-9 of `scale`, the size of the
    numbers in whose rounding errors the two can differ: s_max(K) + s_max(S) for eigenvalues of K + S, the bound
    itself where both are accurate relative to it. 1e-9 is fifty times the M eps by which backward stable methods
    err in float64 for M = 100,000; multiply the scale for what was measured in a lower precision.
    """
    measured, bound = np.asarray(measured, dtype=np.float64), np.asarray(bound, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        excess = measured - bound - _TOLERANCE * np.abs(scale)
        # An infinite bound holds for anything; the difference of two infinities would be nan.
        result: FloatArray = np.where(measured <= bound, 0.0, np.maximum(excess, 0.0))
    return result


def _check_magnitudes(**values: FloatArray | float) -> None:
    # nan passes: the bound of a measurement that failed is nan.
    for name, value in values.items():
        if (np.asarray(value) < 0).any():
            raise BoundError(f"{name} must not be negative, got {value}")


def _positive(lambdas: FloatArray) -> FloatArray:
    lambdas = np.asarray(lambdas, dtype=np.float64)
    if not (np.isfinite(lambdas) & (lambdas > 0)).all():
        raise LambdaError(f"lambda must be positive and finite, got {lambdas}: remove what is not from the grid")
    return lambdas
