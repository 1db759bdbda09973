"""Linearized training at any step without taking the steps: gradient descent and gradient flow, mode by mode."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ntk_dist.arrays import FloatArray
from ntk_dist.errors import NtkError
from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.ridge import check_path


class StepError(NtkError):
    """A step size, a number of steps or a time is not valid for training."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Weights d_t on the way to the minimizer of (1/2)|J d - r|^2 + (lambda/2)|d|^2 from d_0 = 0.

    M rows, k targets, L lambdas, S times. A descent that diverges out of the range of float64 leaves inf or nan.

    lambdas: (L,), absolute; 0 is plain least squares.
    times: (S,), the numbers of steps of gradient descent, or the times of gradient flow; (S, L) where each lambda has
        its own steps.
    residual_modes: (S, L, k, M), of r - J d_t: its projections on the eigenvectors.
    dual_modes: (S, L, k, M), of a_t.
    squared_distance: (S, L), |d_t|^2 = tr a_t^T K a_t, summed over the k targets.
    eigenvectors: U, (M, M).
    """

    lambdas: FloatArray
    times: FloatArray
    residual_modes: FloatArray
    dual_modes: FloatArray
    squared_distance: FloatArray
    eigenvectors: FloatArray

    @cached_property
    def train_residuals(self) -> FloatArray:
        """The residuals r - J d_t, (S, L, M, k)."""
        return outputs_of_modes(self.residual_modes, self.eigenvectors)

    @cached_property
    def dual_coefficients(self) -> FloatArray:
        """The a_t of d_t = J^T a_t, (S, L, M, k).

        Where K is singular they are one choice of many, the one that training itself makes and that tends to the
        ridge's; for lambda = 0 it grows without end in the null space of K, and with it the rounding errors of
        K(eval, train) a_t.
        """
        return outputs_of_modes(self.dual_modes, self.eigenvectors)

    def eval_fit(self, rows: FloatArray) -> FloatArray:
        """Return the change of the outputs, J_eval d_t, (S, L, m, k) for rows (m, M) of K(eval, train).

        Blocks of rows can be given one at a time. Raises KernelShapeError for rows of another length.
        """
        M = len(self.eigenvectors)
        if rows.ndim != 2 or rows.shape[1] != M:
            raise KernelShapeError(f"this trajectory predicts from rows (m, {M}) of K(eval, train), got {rows.shape}")
        return outputs_of_modes(self.dual_modes, rows @ self.eigenvectors)


def gradient_descent(
    decomposition: EigenDecomposition,
    residual: FloatArray,
    lambdas: FloatArray,
    step_size: float | FloatArray,
    steps: npt.NDArray[np.int64],
) -> Trajectory:
    """Return d_t after each of `steps` (S,) full-batch steps of size h, for residual r (M, k) and lambdas (L,) >= 0.

    d <- d + h (J^T (r - J d) - lambda d) with d_t = J^T a_t is a <- a + h (r - (K + lambda I) a). In the mode of
    the eigenvalue s this makes a_t = (1 - q^t) / (s + lambda) times that of r, with q = 1 - h (s + lambda), and the
    residual r - K a_t = (lambda + s q^t) / (s + lambda) times that of r. No momentum. A step size of
    `largest_stable_step_size` or more is followed wherever it leads. Each lambda may have its own step size, (L,), and
    its own numbers of steps, (S, L).
    Raises StepError, LambdaError for lambda < 0, KernelShapeError for a residual of other length.
    """
    residual, lambdas, rates = _check_problem(decomposition, residual, lambdas)
    sizes = np.asarray(step_size, dtype=np.float64)
    if sizes.shape not in ((), lambdas.shape) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise StepError(f"a step size must be positive and finite, for all lambdas or for each, got {step_size}")
    if not np.issubdtype(np.asarray(steps).dtype, np.integer):
        raise StepError(f"numbers of steps must be integers, got {np.asarray(steps).dtype}: times belong to the flow")
    times = _check_times(steps, each=len(lambdas))
    t = times.reshape(len(times), -1, 1)
    progress = sizes[..., None] * rates
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        # log |q|; beyond h (s + lambda) = 1, |q| = 1 + (h (s + lambda) - 2), a difference without rounding error.
        logarithm = np.log1p(-np.minimum(progress, 2 - progress))
        # -inf would leave nan of no steps at all
        exponent = t * np.maximum(logarithm, np.finfo(np.float64).min)
        remaining, covered = _factors(exponent)
        beyond = np.flatnonzero((progress > 1).any(axis=0))
        if len(beyond):
            alternates = (progress[:, beyond] > 1) & (t % 2 == 1)
            size = remaining[:, :, beyond]
            remaining[:, :, beyond] = np.where(alternates, -size, size)
            covered[:, :, beyond] = np.where(alternates, 1 + size, covered[:, :, beyond])
    return _trajectory(decomposition, residual, lambdas, times, (remaining, covered, sizes[..., None] * t))


def gradient_flow(
    decomposition: EigenDecomposition, residual: FloatArray, lambdas: FloatArray, times: FloatArray
) -> Trajectory:
    """Return d_t at `times` (S,) >= 0 of the flow d' = J^T (r - J d) - lambda d, for r (M, k) and lambdas (L,) >= 0.

    The limit of `gradient_descent` for h -> 0 at h * steps = t: exp(-(s + lambda) t) stands where q^t does there.
    Raises StepError, LambdaError for lambda < 0, KernelShapeError for a residual of other length.
    """
    times = _check_times(times)
    residual, lambdas, rates = _check_problem(decomposition, residual, lambdas)
    t = times[:, None, None]
    return _trajectory(decomposition, residual, lambdas, times, (*_factors(-rates * t), t))


def largest_stable_step_size(decomposition: EigenDecomposition, lambdas: FloatArray) -> FloatArray:
    """Return 2 / (s_max + lambda), (L,), for lambdas (L,) >= 0: gradient descent converges for every h below it.

    The fastest mode shrinks by |1 - h (s_max + lambda)| a step. inf where nothing moves, K = 0 and lambda = 0.
    """
    with np.errstate(divide="ignore"):
        result: FloatArray = 2 / (_eigenvalues(decomposition)[-1] + np.asarray(lambdas, dtype=np.float64))
    return result


def _eigenvalues(decomposition: EigenDecomposition) -> FloatArray:
    # Rounding leaves some eigenvalues of a singular kernel slightly negative: plain descent would blow them up.
    return np.maximum(decomposition.eigenvalues, 0.0)


def _check_problem(
    decomposition: EigenDecomposition, residual: FloatArray, lambdas: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    lambdas = np.asarray(lambdas, dtype=np.float64)
    # What training reaches in finite time needs no regularization, unlike what `check_path` was written for.
    residual, _ = check_path(residual, np.where(lambdas == 0, 1.0, lambdas), decomposition.size)
    return residual, lambdas, _eigenvalues(decomposition) + lambdas[:, None]


def _check_times(times: npt.NDArray[np.float64 | np.int64], each: int | None = None) -> FloatArray:
    """Return times as floats, (S,); also (S, each) where that is given."""
    result = np.asarray(times, dtype=np.float64)
    shaped = result.ndim == 1 or (result.ndim == 2 and result.shape[1] == each)
    if not shaped or not result.size or not (np.isfinite(result) & (result >= 0)).all():
        raise StepError(f"steps and times must be a non-empty vector of finite numbers >= 0, got {times}")
    return result


def _factors(exponent: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return e^x and 1 - e^x."""
    covered = np.expm1(exponent)
    return np.exp(exponent), np.negative(covered, out=covered)


def _trajectory(
    decomposition: EigenDecomposition,
    residual: FloatArray,
    lambdas: FloatArray,
    times: FloatArray,
    factors: tuple[FloatArray, FloatArray, FloatArray],
) -> Trajectory:
    """Assemble from the factors q^t and 1 - q^t (overwritten) of all modes, (S, L, M), and h t, (S, 1 or L, 1).

    What depends on no time is divided first, so that the numbers of all times are passed over as seldom as can be.
    """
    remaining, growth, elapsed = factors
    s, U = _eigenvalues(decomposition), decomposition.eigenvectors
    modes, shifts = (U.T @ residual).T, lambdas[:, None]
    rates = s + shifts
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ends = np.where(rates > 0, shifts / rates, 1.0)[:, None] * modes
        leaves = np.where(rates > 0, s / rates, 0.0)[:, None] * modes
        left = remaining[:, :, None] * leaves
        left += ends
        growth /= rates
        # The limit h t is exact where the quotient runs out of digits, or is 0 / 0.
        soonest = elapsed.min(initial=np.inf, where=elapsed > 0)
        slow = np.flatnonzero((~(rates * soonest >= np.finfo(np.float64).tiny)).any(axis=0))
        still = rates[:, slow] * elapsed < np.finfo(np.float64).tiny
        growth[:, :, slow] = np.where(still, elapsed, growth[:, :, slow])
        dual = growth[:, :, None] * modes
        squared_distance = np.square(growth, out=growth) @ (s * (modes**2).sum(axis=0))
    return Trajectory(lambdas, times, left, dual, squared_distance, U)


def outputs_of_modes(modes: FloatArray, projected: FloatArray) -> FloatArray:
    """Return the values (S, L, m, k) of modes (S, L, k, M), given their rows (m, M) of each eigenvector.

    All times and lambdas share one product.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return np.tensordot(modes, projected, axes=(3, 1)).swapaxes(2, 3)
