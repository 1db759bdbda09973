"""The kernels of a solve stage, as sums of the blocks that its inputs store."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ntk_dist.arrays import FloatArray
from orchestrator.stages.context.blocks import DIAGONAL, kernel_blocks
from orchestrator.stages.context.joined_tiles import HeldBlocks, joined
from orchestrator.stages.context.problem import Problem
from orchestrator.stages.context.work import Work
from orchestrator.stages.solve import SolveParameters
from orchestrator.stages.solve.memory import SolveSize
from orchestrator.stages.solve.sums import KernelSums, Term, summation_order
from orchestrator.store.stage import Stage
from orchestrator.sweep.blocks import blocks_within


class StoredBlocks:
    """Sums of the blocks of layer sets, with those that the worker holds from stages before.

    Args:
        stage: the stage, whose method must be `dual` when sums are asked for.
        work: its attempt.
        problem: its problem.
        decomposes_ahead: whether decompositions that wait for their stages have half of the memory that is left.
    """

    def __init__(self, stage: Stage[SolveParameters], work: Work, problem: Problem, *, decomposes_ahead: bool) -> None:
        self._stage, self._work, self._problem = stage, work, problem
        self._decomposes_ahead = decomposes_ahead
        self._symmetric = stage.parameters.problem.kernel.kind != "asymmetric_sign"

    def square(self, groups: Sequence[str]) -> FloatArray:
        """Return K(train, train), (M, M), in Fortran order; of a symmetric kernel the lower triangle alone."""
        tiles, problem = self._tiles, self._problem
        order = self._order(groups)
        return self._sums.square(tiles, order, problem.size, problem.rows_per_example, symmetric=self._symmetric)

    def rows(self, groups: Sequence[str], *, borrowed: bool) -> FloatArray:
        """Return K(eval, train), (M_eval, M), `borrowed` as in `KernelSums.rows`."""
        tiles, problem = joined(self._work.inputs(self._stage, "eval_tiles")), self._problem
        order, shape = self._order(groups), (problem.eval_size, problem.size)
        return self._sums.rows(tiles, order, shape, problem.rows_per_example, borrowed=borrowed)

    def diagonal(self, groups: Sequence[str]) -> FloatArray | None:
        """Return K(x, x) of the evaluation rows x, (M_eval,); None where the kernel is not symmetric."""
        if not self._symmetric:
            return None
        tiles = joined(self._work.inputs(self._stage, "eval_tiles"))
        firsts = [tile for tile in tiles if tile.facts["columns"][0] == 0]
        found = []
        for tile in firsts:
            names = [DIAGONAL + block for block in blocks_within(groups, kernel_blocks(tile))]
            own: FloatArray = np.sum([tile.array(name) for name in names], axis=0)
            found.append(np.einsum("nii->ni", own).ravel())
        return np.concatenate(found)

    @cached_property
    def room(self) -> int:
        """Bytes that the decomposition of one kernel leaves; none after memory ran out, whatever the budget is."""
        problem = self._problem
        size = SolveSize(
            self._stage.parameters.problem.kernel,
            decomposed=problem.size,
            primal=False,
            M=problem.size,
            M_eval=problem.eval_size,
            targets=problem.residual.shape[1],
            rows_per_example=problem.rows_per_example,
        )
        needed = size.memory_bytes(8 * problem.eval_size * problem.size)
        return 0 if self._work.halvings else max(0, self._work.sweep.spec.compute.memory_budget - needed)

    def _order(self, groups: Sequence[str]) -> tuple[Term, ...]:
        return summation_order(tuple(groups), tuple(kernel_blocks(self._tiles[0])))

    @property
    def _tiles(self) -> list[HeldBlocks]:
        return joined(self._work.inputs(self._stage, "tiles"))

    @property
    def _sums(self) -> KernelSums:
        """The worker's sums for the problem, limited to the memory that decompositions leave."""
        sums, inputs = self._work.shared(KernelSums), self._stage.inputs
        room = self.room // 2 if self._decomposes_ahead else self.room
        sums.use((inputs["tiles"], inputs["eval_tiles"], self._problem.n_train), room)
        return sums
