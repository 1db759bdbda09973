"""Training of the linearized model at some times, by gradient flow and by gradient descent, from its decomposition."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.decomposition import Decomposition
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.trajectory import Trajectory, gradient_descent, gradient_flow, outputs_of_modes
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

    def along(self, lambdas: FloatArray, times: FloatArray) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
        """Yield r - J d, (S, L, M, k), J_eval d, (S, L, M_eval, k), and |d|^2, (S, L), for each of `TRAINED_BY`.

        lambdas (L,) and times (S,) are absolute.
        """
        sizes = step_sizes(self.sigma_max, lambdas)
        counts = steps(times[:, None], sizes).astype(np.int64)
        ways = (
            gradient_flow(self._eigen, self._right, lambdas, times),
            gradient_descent(self._eigen, self._right, lambdas, sizes, counts),
        )
        evaluated = self._outputs(ways, self._evaluation)
        if not self._primal:
            for way, outputs in zip(ways, evaluated, strict=True):
                yield outputs_of_modes(way.residual_modes, way.eigenvectors), outputs, way.squared_distance
            return
        # here the modes are those of the weights themselves, as the coefficients of J^T r
        for way, fitted, outputs in zip(ways, self._outputs(ways, self._train), evaluated, strict=True):
            yield self._residual - fitted, outputs, np.einsum("slkp,slkp->sl", way.dual_modes, way.dual_modes)

    def _outputs(self, ways: Sequence[Trajectory], blocks: Blocks) -> list[FloatArray]:
        """Return J d for streamed rows of J, or of K(., train), (S, L, rows, k) for each way."""
        found: list[list[FloatArray]] = [[] for _ in ways]
        for block in blocks():
            rows = block @ self._eigen.eigenvectors if self._primal else self._eigen.in_modes(block)
            for way, parts in zip(ways, found, strict=True):
                parts.append(outputs_of_modes(way.dual_modes, rows))
        return [np.concatenate(parts, axis=2) for parts in found]


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
        for way, measured in enumerate(followed.along(lambdas[part], times)):
            for name, values in _numbers(*measured, problem).items():
                found.setdefault(name, np.empty(shape))[way, part] = values.T
    return found


def _numbers(left: FloatArray, evaluated: FloatArray, squares: FloatArray, problem: Problem) -> dict[str, FloatArray]:
    """Return numbers by name, (S, L) each."""
    predictions = problem.eval_initial + evaluated
    errors = problem.eval_targets - predictions

    def measured(split: str, outputs: FloatArray) -> dict[str, FloatArray]:
        found = problem.metrics(split, outputs.reshape(-1, *outputs.shape[2:]))
        return {name: values.reshape(squares.shape) for name, values in found.items()}

    return {
        "train_loss": np.einsum("slmk,slmk->sl", left, left) / (2 * problem.n_train),
        "eval_loss": np.einsum("slmk,slmk->sl", errors, errors) / (2 * problem.n_eval),
        "parameter_distance": np.sqrt(squares),
        **measured("train", problem.targets - left),
        **measured("eval", predictions),
    }
