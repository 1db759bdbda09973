"""Training of the linearized model at some times, by gradient flow and by gradient descent, from its decomposition."""

from collections.abc import Callable, Iterator

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.decomposition import Decomposition
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.trajectory import Trajectory, gradient_descent, gradient_flow
from orchestrator.stages.context.problem import Problem
from orchestrator.stages.solve import FlowParameters
from orchestrator.stages.solve.flow_memory import TRAINED_BY, lambdas_at_once
from orchestrator.stages.solve.path import Strengths

MOST_STEPS = 2**53
"""Steps beyond which float64 cannot count."""

Blocks = Callable[[], Iterator[FloatArray]]


class Followed:
    """A decomposition with eigenvectors, and what gives the outputs of weights on their way to a minimizer.

    Args:
        decomposition: of K, or of J^T J.
        residual: r, (M, k).
        train: streams rows of J for the training examples where J^T J was decomposed; not called else.
        evaluation: streams rows of K(eval, train), or of J for the evaluation examples.
    """

    def __init__(self, decomposition: Decomposition, residual: FloatArray, train: Blocks, evaluation: Blocks) -> None:
        self.sigma_max = max(0.0, float(decomposition.eigenvalues[-1]))
        self._residual, self._train, self._evaluation = residual, train, evaluation
        self._primal = isinstance(decomposition, PrimalDecomposition)
        if isinstance(decomposition, PrimalDecomposition):
            eigen, self._right = decomposition.normal_equations(residual)
        else:
            eigen, self._right = decomposition, residual  # type: ignore[assignment]
        if not isinstance(eigen, EigenDecomposition):
            raise AssertionError("training is followed with all eigenvectors")
        self._eigen = eigen

    def along(self, lambdas: FloatArray, times: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return r - J d, (2, L, S, M, k), J_eval d, (2, L, S, M_eval, k), and |d|^2, (2, L, S).

        The first axis is `TRAINED_BY`; lambdas (L,) and times (S,) are absolute.
        """
        flow = gradient_flow(self._eigen, self._right, lambdas, times)
        descents = [self._descent(lambdas[i : i + 1], times) for i in range(len(lambdas))]
        # (2, L, S, k, M): all of them share one product with the eigenvectors, and one with what gives outputs
        left, d = (
            np.array([getattr(flow, name).swapaxes(0, 1), [getattr(each, name)[:, 0] for each in descents]])
            for name in ("residual_modes", "dual_modes")
        )
        squares = np.array([flow.squared_distance.T, [each.squared_distance[:, 0] for each in descents]])
        U = self._eigen.eigenvectors
        evaluated = np.concatenate([_outputs(d, block @ U) for block in self._evaluation()], axis=3)
        if not self._primal:
            return _outputs(left, U), evaluated, squares
        # here the modes are those of the weights themselves, as the coefficients of J^T r
        fitted = np.concatenate([_outputs(d, block @ U) for block in self._train()], axis=3)
        return self._residual - fitted, evaluated, np.einsum("wlskp,wlskp->wls", d, d)

    def _descent(self, shift: FloatArray, times: FloatArray) -> Trajectory:
        (size,) = step_sizes(self.sigma_max, shift)
        return gradient_descent(self._eigen, self._right, shift, float(size), steps(times, size).astype(np.int64))


def step_sizes(sigma_max: float, lambdas: FloatArray) -> FloatArray:
    """Return 1 / (sigma_max + lambda), (L,): half the step size at which gradient descent begins to diverge."""
    return np.asarray(1 / (sigma_max + lambdas))


def steps(times: FloatArray, size: FloatArray) -> FloatArray:
    """Return the whole numbers of steps that come nearest to times, broadcast against step sizes."""
    return np.minimum(np.rint(times / size), MOST_STEPS)


def flow_strengths(flow: FlowParameters, trace: float, size: int) -> FloatArray:
    """Return the absolute lambdas of the table `flow`, (1 + L,): 0 and those of the grid."""
    return np.concatenate([[0.0], Strengths(flow.lambdas, flow.lambda_scale).of(trace, size)])


def flow_moments(flow: FlowParameters, sigma_max: float) -> FloatArray:
    """Return the absolute times, (S,)."""
    given = np.array(flow.times)
    return given / sigma_max if flow.time_scale == "sigma_max" else given


def flow_numbers(
    flow: FlowParameters, followed: Followed, lambdas: FloatArray, problem: Problem
) -> dict[str, FloatArray]:
    """Return losses, metrics and |d| by name, (2, L, S) each: `TRAINED_BY`, lambdas (L,), times.

    They are nan where the kernel is 0, for nothing moves and its time has no unit.
    """
    shape = (len(TRAINED_BY), len(lambdas), len(flow.times))
    if not followed.sigma_max:
        return {"train_loss": np.full(shape, np.nan)}
    times, found = flow_moments(flow, followed.sigma_max), dict[str, FloatArray]()
    at_once = lambdas_at_once(flow, problem.size, problem.eval_size, problem.residual.shape[1])
    for start in range(0, len(lambdas), at_once):
        part = slice(start, start + at_once)
        for name, values in _numbers(*followed.along(lambdas[part], times), problem).items():
            found.setdefault(name, np.empty(shape))[:, part] = values
    return found


def _numbers(left: FloatArray, evaluated: FloatArray, squares: FloatArray, problem: Problem) -> dict[str, FloatArray]:
    predictions = problem.eval_initial + evaluated
    errors = problem.eval_targets - predictions

    def measured(split: str, outputs: FloatArray) -> dict[str, FloatArray]:
        found = problem.metrics(split, outputs.reshape(-1, *outputs.shape[3:]))
        return {name: values.reshape(squares.shape) for name, values in found.items()}

    return {
        "train_loss": np.einsum("wlsmk,wlsmk->wls", left, left) / (2 * problem.n_train),
        "eval_loss": np.einsum("wlsmk,wlsmk->wls", errors, errors) / (2 * problem.n_eval),
        "parameter_distance": np.sqrt(squares),
        **measured("train", problem.targets - left),
        **measured("eval", predictions),
    }


def _outputs(modes: FloatArray, rows: FloatArray) -> FloatArray:
    """Return the products (2, L, S, rows, k) of rows (rows, q) of each mode with modes (2, L, S, k, q)."""
    return np.tensordot(modes, rows, axes=(4, 1)).swapaxes(3, 4)
