"""What a solve stage computes of a decomposition beside spectrum and ridge path: contributions and trajectories."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.decomposition import Decomposition
from ntk_dist.solvers.kept_krylov import KeptKrylovPath
from ntk_dist.solvers.kept_path import KeptPath
from ntk_dist.solvers.primal import PrimalDecomposition
from orchestrator.stages.context.joined_tiles import HeldBlocks
from orchestrator.stages.context.problem import Problem
from orchestrator.stages.solve import FlowParameters, SolveParameters
from orchestrator.stages.solve.contributions import contributing, dual_contributions, primal_contributions
from orchestrator.stages.solve.flow import Followed, flow_numbers, flow_strengths

Blocks = Callable[[], Iterator[FloatArray]]


class FurtherNumbers:
    """Arrays and facts of what the parameters of a stage ask for.

    Args:
        parameters: of the stage.
        problem: its problem.
        tiles: artifacts of the kernel blocks between training examples; none where rows are read.
        features: returns for some groups streams of their rows, of training and evaluation examples.
    """

    def __init__(
        self,
        parameters: SolveParameters,
        problem: Problem,
        tiles: Sequence[HeldBlocks],
        features: Callable[[Sequence[str]], tuple[Blocks, Blocks]],
    ) -> None:
        self._parameters, self._problem, self._tiles, self._features = parameters, problem, tiles, features
        self._followed: list[list[str]] = []

    def arrays(
        self,
        groups: Sequence[str],
        kept: KeptPath | KeptKrylovPath,
        decomposition: Decomposition | None = None,
        rows: Iterable[FloatArray] = (),
    ) -> dict[str, FloatArray]:
        """Return the arrays of a layer set: those of `KeptContributions`, and `flow`.

        Args:
            groups: of the layer set.
            kept: the stored part of its decomposition, or of its Krylov spaces.
            decomposition: its decomposition, if there is one.
            rows: those from which evaluation outputs are predicted, where a kernel was decomposed.
        """
        found: dict[str, FloatArray] = {}
        if self._parameters.contributions:
            found |= self._contributions(groups, kept, decomposition)
        if self._parameters.flow is not None and decomposition is not None:
            found |= self._flow(self._parameters.flow, groups, decomposition, rows)
        return found

    def facts(self) -> dict[str, Any]:
        """Return the names of what the arrays of each layer set hold: see `compute`."""
        asked, facts = self._parameters, dict[str, Any]()
        if asked.contributions:
            facts["contributing"] = [contributing(groups, self._tiles) for groups in asked.layer_sets]
        return facts if asked.flow is None else facts | {"flow": self._followed}

    def _contributions(
        self, groups: Sequence[str], kept: KeptPath | KeptKrylovPath, decomposition: Decomposition | None
    ) -> dict[str, FloatArray]:
        if not isinstance(decomposition, PrimalDecomposition):
            return dual_contributions(groups, kept, self._tiles, self._problem.rows_per_example).arrays()
        weights = decomposition.weights(kept.basis)
        return primal_contributions(groups, kept.train, weights, lambda part: self._features(part)[0]).arrays()

    def _flow(
        self, flow: FlowParameters, groups: Sequence[str], decomposition: Decomposition, rows: Iterable[FloatArray]
    ) -> dict[str, FloatArray]:
        train: Blocks = lambda: iter(())  # noqa: E731
        evaluation: Blocks = lambda: iter(rows)  # noqa: E731
        if isinstance(decomposition, PrimalDecomposition):
            train, evaluation = self._features(groups)
        followed = Followed(decomposition, self._problem.residual, train, evaluation)
        lambdas = flow_strengths(flow, decomposition.trace, decomposition.size)
        numbers = flow_numbers(flow, followed, lambdas, self._problem)
        self._followed.append(list(numbers))
        return {"flow": np.array(list(numbers.values()))}
