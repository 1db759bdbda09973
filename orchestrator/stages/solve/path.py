"""Results for each lambda, computed on demand from the stored part of a solve stage's decompositions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.evidence import log_evidence, prior_variance
from ntk_dist.solvers.kept_krylov import KeptKrylovPath
from ntk_dist.solvers.kept_path import KeptPath
from ntk_dist.solvers.ridge import RidgePath
from ntk_dist.spectrum.bounds import ridge_distance_bound
from orchestrator.stages.context.problem import Problem
from orchestrator.stages.solve import SolveParameters
from orchestrator.store.artifacts import Artifact
from orchestrator.store.stage import Stage
from orchestrator.sweep.training_estimates import EVIDENCE

_BOUND = "parameter_distance_bound"


@dataclass(frozen=True, eq=False)
class LambdaPath:
    """The cells of a layer set, one for each of L lambdas.

    Attributes:
        columns: values for each lambda, (L,) each, by column of `cells`.
        predictions: outputs for the evaluation examples, (L, M_eval, k).
        variances: predictive variances of these outputs, (L, M_eval), and of their labels, which have the noise's
            too; None where none are kept.
    """

    columns: dict[str, FloatArray]
    predictions: FloatArray
    variances: tuple[FloatArray, FloatArray] | None = None


@dataclass(frozen=True)
class Strengths:
    """Regularization strengths, as the spec gives them.

    Attributes:
        given: (L,).
        scale: `absolute`, or `trace` for multiples of the mean eigenvalue of a kernel.
    """

    given: tuple[float, ...]
    scale: str

    def of(self, trace: float, size: int) -> FloatArray:
        """Return the absolute strengths (L,) for a kernel with that trace and number of rows.

        They are nan where they are in units of a kernel that is zero.
        """
        strengths = np.array(self.given, dtype=np.float64)
        if self.scale != "trace":
            return strengths
        return strengths * (trace / size) if trace else np.full(len(strengths), np.nan)


NO_UNIT = (
    "the kernel is zero, no output depends on these parameters, so that lambda in units of trace/M is no number; "
    "whatever it is, nothing moves"
)
"""Why there is no lambda."""


def for_solving(lambdas: FloatArray) -> FloatArray:
    """Return lambdas (L,) with any positive number for nan: by a kernel that is zero, no lambda moves anything."""
    return np.where(np.isnan(lambdas), 1.0, lambdas)


def follow(
    kept: KeptPath | KeptKrylovPath, trace: float, problem: Problem, strengths: Strengths, missing: Mapping[str, str]
) -> LambdaPath:
    """Return the cells of a layer set.

    Args:
        kept: the stored part of its decomposition, or of its Krylov spaces.
        trace: of its kernel.
        problem: the regression problem.
        strengths: the lambdas.
        missing: reasons why columns are nan, by column.
    """
    lambdas = strengths.of(trace, kept.size)
    path = kept.ridge_path(problem.residual, for_solving(lambdas))
    predictions = problem.eval_initial + kept.eval_fit(path)
    columns = path_columns(path, predictions, problem, missing)
    if isinstance(kept, KeptKrylovPath):
        columns["ridge_residual"] = kept.solve_residuals(path)
    elif EVIDENCE not in missing:
        columns[EVIDENCE] = log_evidence(path, problem.residual, kept.eigenvalues)
    columns |= {"lambda": lambdas, _BOUND: np.where(np.isnan(lambdas), np.nan, columns[_BOUND])}
    return LambdaPath(columns, predictions, _variances(kept, path, problem.residual))


def _variances(
    kept: KeptPath | KeptKrylovPath, path: RidgePath, residual: FloatArray
) -> tuple[FloatArray, FloatArray] | None:
    if isinstance(kept, KeptKrylovPath) or kept.variance is None:
        return None
    of_output = kept.variance.predictive_variance(path, residual, kept.eigenvalues)
    return of_output, of_output + prior_variance(path, residual)[:, None]


def path_columns(
    path: RidgePath, predictions: FloatArray, problem: Problem, missing: Mapping[str, str]
) -> dict[str, FloatArray]:
    """Return the columns of each lambda, (L,) each, given the evaluation outputs `predictions` (L, M_eval, k)."""
    residual_norm = float(np.linalg.norm(problem.residual))
    squared_residual = _sum_of_squares(path.train_residuals)
    eval_residuals = problem.eval_targets - predictions
    left_out, unknown = path.leave_one_out, np.full(len(path.lambdas), np.nan)
    return {
        "lambda": path.lambdas,
        "train_loss": squared_residual / (2 * problem.n_train),
        "eval_loss": _sum_of_squares(eval_residuals) / (2 * problem.n_eval),
        "objective": (squared_residual + path.lambdas * path.squared_distance) / 2,
        "parameter_distance": np.sqrt(path.squared_distance),
        _BOUND: ridge_distance_bound(residual_norm, path.lambdas),
        "degrees_of_freedom": path.degrees_of_freedom,
        "gcv": unknown if "gcv" in missing else path.gcv,
        EVIDENCE: unknown,
        "leave_one_out_loss": unknown if left_out is None else _sum_of_squares(left_out) / (2 * problem.n_train),
        **problem.metrics("train", problem.targets - path.train_residuals),
        **problem.metrics("eval", predictions),
    }


def read_kept(
    stage: Stage[SolveParameters], artifact: Artifact, position: int, *, size: int
) -> KeptPath | KeptKrylovPath:
    """Return the stored decomposition of the layer set at a position of a solve stage; its kernel has `size` rows.

    Raises:
        DamagedArtifactError: it does not match its checksums.
    """
    end = f".{position}"
    arrays = artifact.arrays([name for name in artifact.names() if name.endswith(end)])
    kept = {name.removesuffix(end): array for name, array in arrays.items()}
    if stage.parameters.iterative is not None:
        return KeptKrylovPath.from_arrays(kept)
    return KeptPath.from_arrays(kept, primal=stage.parameters.method == "primal", size=size)


def _sum_of_squares(values: FloatArray) -> FloatArray:
    """Sum the squares of (L, m, k) over all but the first axis."""
    return cast(FloatArray, np.einsum("lmk,lmk->l", values, values))
