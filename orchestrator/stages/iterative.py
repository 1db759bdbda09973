"""Solving without a factorisation: the numbers of layer sets whose kernels are larger than memory, from their tiles."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from ntk_dist.iterative import IterativeDecomposition
from ntk_dist.ridge import RidgePath
from ntk_dist.tile_operator import TileOperator
from orchestrator.stages.blocks import summed_tiles
from orchestrator.stages.path import Strengths, path_columns
from orchestrator.stages.solve import Solver
from orchestrator.stages.split import operator_shares

FloatArray = npt.NDArray[np.float64]


class IterativeSolver(Solver):
    """A `Solver` that never holds a kernel: the stage's method must be `dual`, and its kernel symmetric.

    Numbers that need every eigenvalue are nan, and stand beside how exact the others are.
    """

    def numbers(self, groups: list[str]) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """Return, of a layer set, its scalars and those of each lambda, (L,) each, and its arrays of any length."""
        problem = self.problem
        K, evaluation = self.operators(groups)
        decomposition = IterativeDecomposition(K, seed=self.stage.parameters["probe_seed"])
        parameters = self.stage.parameters
        strengths = Strengths(tuple(parameters["lambdas"]), parameters["lambda_scale"])
        found = decomposition.ridge_path(problem.residual, strengths.of(decomposition.trace, decomposition.size))
        predictions = problem.eval_initial + _change(evaluation, found.path)
        self.shares = operator_shares(groups, self.operators, problem.residual)
        summary = decomposition.summary(**self.summary_settings())
        grid, density = decomposition.density.smoothed(summary.noise_floor)
        scalars = {
            **asdict(summary),
            "kernel_size": decomposition.size,
            "label_alignment": decomposition.label_alignment(problem.targets),
            **problem.initial_scalars,
            "frobenius_norm": decomposition.norm,
            "ridge_steps": found.steps,
            "passes": K.passes,
        }
        path = path_columns(found.path, predictions, problem, self.missing) | {"ridge_residual": found.residuals}
        return scalars | self.shares | path, ({"predictions": predictions} if parameters["predictions"] else {}) | {
            "largest": decomposition.largest.values,
            "largest_residuals": decomposition.largest.residuals,
            "smallest": decomposition.smallest.values,
            "smallest_residuals": decomposition.smallest.residuals,
            "nodes": decomposition.density.nodes,
            "weights": decomposition.density.weights,
            "grid": grid,
            "density": density,
        }

    def operators(self, groups: Sequence[str]) -> tuple[TileOperator, TileOperator]:
        """Return K(train, train) (M, M) and K(eval, train) (M_eval, M) of `groups`, tile by tile."""
        M, M_eval, per_example = self.problem.size, self.problem.eval_size, self.problem.rows_per_example
        train, evaluation = (M, M), (M_eval, M)
        return (
            TileOperator(summed_tiles(self.tiles, groups, train, per_example), train, symmetric=True),
            TileOperator(summed_tiles(self.eval_tiles, groups, evaluation, per_example), evaluation),
        )


def _change(evaluation: TileOperator, path: RidgePath) -> FloatArray:
    """Return the change of the evaluation outputs along a path, (L, M_eval, k), in one pass over the tiles."""
    L, M, k = path.solution.shape
    columns = path.solution.transpose(1, 0, 2).reshape(M, L * k)
    return evaluation.times(columns).reshape(-1, L, k).transpose(1, 0, 2)
