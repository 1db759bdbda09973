"""Training of the linearized model at some times, by gradient flow and by gradient descent, from its decomposition."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.decomposition import Decomposition
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.trajectory import Trajectory, gradient_descent, gradient_flow
from orchestrator.stages.context.problem import Problem
from orchestrator.stages.solve import FlowParameters
from orchestrator.stages.solve.path import Strengths

TRAINED_BY = ("flow", "descent")
"""Ways of training, in the order of the array."""

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

    def at(self, lambdas: FloatArray, times: FloatArray, trained_by: str) -> Trajectory:
        """Return the way at times (S,) for lambdas (L,); of gradient descent with steps of `step_sizes`."""
        if trained_by == "flow":
            return gradient_flow(self._eigen, self._right, lambdas, times)
        (size,) = step_sizes(self.sigma_max, lambdas)
        return gradient_descent(self._eigen, self._right, lambdas, float(size), steps(times, size).astype(np.int64))

    def outputs(self, way: Trajectory) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return r - J d (S, L, M, k), J_eval d (S, L, M_eval, k) and |d|^2 (S, L) along a way."""
        d = way.dual_coefficients  # weights (S, L, p, k) where J^T J was decomposed
        evaluated = _applied(self._evaluation(), d)
        if not self._primal:
            return way.train_residuals, evaluated, way.squared_distance
        return self._residual - _applied(self._train(), d), evaluated, np.einsum("slpk,slpk->sl", d, d)


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
    for i, trained_by in enumerate(TRAINED_BY):
        for j in range(len(lambdas)):
            left, evaluated, squares = followed.outputs(followed.at(lambdas[j : j + 1], times, trained_by))
            for name, values in _numbers(left[:, 0], evaluated[:, 0], squares[:, 0], problem).items():
                found.setdefault(name, np.empty(shape))[i, j] = values
    return found


def _numbers(left: FloatArray, evaluated: FloatArray, squares: FloatArray, problem: Problem) -> dict[str, FloatArray]:
    predictions = problem.eval_initial + evaluated
    errors = problem.eval_targets - predictions
    return {
        "train_loss": np.einsum("smk,smk->s", left, left) / (2 * problem.n_train),
        "eval_loss": np.einsum("smk,smk->s", errors, errors) / (2 * problem.n_eval),
        "parameter_distance": np.sqrt(squares),
        **problem.metrics("train", problem.targets - left),
        **problem.metrics("eval", predictions),
    }


def _applied(blocks: Iterable[FloatArray], columns: FloatArray) -> FloatArray:
    """Return the products (S, L, rows, k) of blocks of rows, one below the other, with columns (S, L, q, k)."""
    return np.concatenate([np.tensordot(columns, block, axes=(2, 1)).swapaxes(2, 3) for block in blocks], axis=2)
