"""Solving without a factorization: numbers of layer sets whose kernels exceed memory, from their tiles."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.tile_operator import TileOperator
from ntk_dist.spectrum.iterative import IterativeDecomposition
from orchestrator.stages.context.blocks import summed_tiles
from orchestrator.stages.context.work import Work
from orchestrator.stages.solve import IterativeParameters, SolveParameters
from orchestrator.stages.solve.path import Strengths, for_solving
from orchestrator.stages.solve.scalars import summary_settings
from orchestrator.stages.solve.solver import Solver
from orchestrator.stages.solve.split import operator_shares
from orchestrator.store.stage import Stage


class IterativeSolver(Solver):
    """A `Solver` that never holds a kernel: the stage's method must be `dual`, and its kernel symmetric.

    Numbers that need every eigenvalue are nan; further numbers give the accuracy of the others.

    Attributes:
        own: parameters of products.
        complete: whether the Krylov spaces of all layer sets so far serve every lambda, and not only those from
            `lowest_lambda` on.
    """

    def __init__(self, stage: Stage[SolveParameters], work: Work, own: IterativeParameters) -> None:
        super().__init__(stage, work)
        self.own = own
        self.complete = True

    def numbers(self, groups: Sequence[str]) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """Return the scalars of a layer set, and its arrays of any length, those of `KeptKrylovPath` among them."""
        problem = self.problem
        K, evaluation = self.operators(groups)
        decomposition = IterativeDecomposition(K, seed=self.own.probe_seed)
        (lowest,) = for_solving(self._lowest().of(decomposition.trace, decomposition.size))
        found = decomposition.keep(problem.residual, evaluation, float(lowest))
        self.complete &= found.complete
        self.shares = operator_shares(groups, self.operators, problem.residual)
        summary = decomposition.summary(**summary_settings(self.stage.parameters.problem))
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
        further = self.further.arrays(groups, found.kept)
        return scalars | self.shares, found.kept.arrays() | further | {
            "largest": decomposition.largest.values,
            "largest_residuals": decomposition.largest.residuals,
            "smallest": decomposition.smallest.values,
            "smallest_residuals": decomposition.smallest.residuals,
            "nodes": decomposition.density.nodes,
            "weights": decomposition.density.weights,
            "grid": grid,
            "density": density,
        }

    def _lowest(self) -> Strengths:
        return Strengths((self.own.lowest_lambda,), self.own.lambda_scale)

    def facts(self) -> dict[str, Any]:
        """Return the lowest lambda of the stage's request, and the lowest that its results serve: see `KeptSolves`."""
        lowest = self.own.lowest_lambda
        return {"lowest_lambda": lowest, "serves_from": 0.0 if self.complete else lowest}

    def operators(self, groups: Sequence[str]) -> tuple[TileOperator, TileOperator]:
        """Return K(train, train) (M, M) and K(eval, train) (M_eval, M) of `groups`, tile by tile."""
        M, M_eval, per_example = self.problem.size, self.problem.eval_size, self.problem.rows_per_example
        train, evaluation = (M, M), (M_eval, M)
        return (
            TileOperator(summed_tiles(self.tiles, groups, train, per_example), train, symmetric=True),
            TileOperator(summed_tiles(self.eval_tiles, groups, evaluation, per_example), evaluation),
        )
