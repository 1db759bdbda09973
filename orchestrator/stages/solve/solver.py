"""The problem of one solve stage: its kernels, their decompositions, and what is kept of these."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.decomposition import Decomposition
from ntk_dist.solvers.kept_path import KeptPath
from ntk_dist.solvers.primal import PrimalDecomposition
from orchestrator.stages.context.blocks import BLOCK_BYTES, feature_blocks
from orchestrator.stages.context.joined_tiles import joined
from orchestrator.stages.context.problem import Problem, load_problem
from orchestrator.stages.context.work import Work
from orchestrator.stages.solve import SolveParameters
from orchestrator.stages.solve.ahead import Decomposed, DecomposedAhead, coming_next
from orchestrator.stages.solve.decomposers import decomposers_of
from orchestrator.stages.solve.fitted_start import load_start
from orchestrator.stages.solve.further_numbers import FurtherNumbers
from orchestrator.stages.solve.scalars import summary_settings
from orchestrator.stages.solve.split import dual_shares, primal_shares
from orchestrator.stages.solve.stored_blocks import StoredBlocks
from orchestrator.store.artifacts import Artifact
from orchestrator.store.stage import Stage
from orchestrator.sweep.training_estimates import EVIDENCE, missing_estimates

Blocks = Callable[[], Iterator[FloatArray]]


class Solver:
    """The problem of one solve stage, ready for layer set after layer set.

    Attributes:
        kernel: the section `kernel` of the spec.
        symmetric: whether its kernels are symmetric.
        problem: targets and initial outputs.
        start: how the initial outputs change without an example, where a head was fitted to its label.
        missing: reasons why `gcv`, `leave_one_out_loss` or `log_evidence` is nan, by column.
        shares: columns about the split of the kernel that was decomposed last; empty without the head.
        eigh: decomposes on a GPU; None where that is not asked for.
        decomposer: decomposes symmetric kernels, and records why a GPU did not.
        further: computes what a decomposition gives beside spectrum and path.
    """

    def __init__(self, stage: Stage[SolveParameters], work: Work) -> None:
        self.stage = stage
        self.work = work
        self.kernel = stage.parameters.problem.kernel
        self.symmetric = self.kernel.kind != "asymmetric_sign"
        self.problem: Problem = load_problem(stage, work)
        self.start, why = load_start(stage, work, self.kernel.outputs)
        head = stage.parameters.problem.scorer.head.kind
        self.missing = missing_estimates(head, self.kernel, decomposed=stage.parameters.iterative is None)
        if why:
            self.missing["leave_one_out_loss"] = why
        dual = stage.parameters.method == "dual"
        self.train = [] if dual else work.inputs(stage, "train")
        self.eval = [] if dual else work.inputs(stage, "eval")
        self.tiles = joined(work.inputs(stage, "tiles")) if dual else []
        self.eval_tiles = joined(work.inputs(stage, "eval_tiles")) if dual else []
        self.shares: dict[str, float] = {}
        self.decomposer, self.eigh = decomposers_of(stage, work)
        self._blocks = StoredBlocks(stage, work, self.problem, decomposes_ahead=self.eigh is not None)
        self.further = FurtherNumbers(stage.parameters, self.problem, self.tiles, self._features)
        self._form: float | None = None  # of the targets and the kernel that was decomposed last

    def decompose(self, groups: Sequence[str]) -> tuple[Decomposition, Iterable[FloatArray]]:
        """Return the decomposition of a layer set, and the rows from which evaluation outputs are predicted."""
        if self.stage.parameters.method == "primal":
            return self._decompose_primal(groups)
        K, rows = self.kernel_blocks(groups, borrowed=True)
        self.shares = dual_shares(  # before K is overwritten
            groups,
            K,
            rows,
            self.problem.residual,
            tiles=self.tiles,
            eval_tiles=self.eval_tiles,
            rows_per_example=self.problem.rows_per_example,
            symmetric=self.symmetric,
        )
        return self.decomposition_of(K, self._with_those_ahead(K, groups)), [rows]

    def _with_those_ahead(self, K: FloatArray, groups: Sequence[str]) -> Decomposed | None:
        """Return eigenvalues and eigenvectors of K (M, M) if a GPU decomposes several kernels together; else None."""
        if self.eigh is None or not self.symmetric or self.work.halvings or not self.decomposer.goes_to_device(len(K)):
            return None
        held, problem = self.work.shared(DecomposedAhead), (self.stage.inputs, self.problem.size)
        if (found := held.take(problem, groups)) is not None:
            return found
        # A third of half of what is left: the sums have the other half, and each is there as K, stacked and decomposed.
        room = min(self.eigh.most_together(len(K)), self._blocks.room // (6 * K.nbytes)) - 1
        others = list(islice(coming_next(self.stage, groups, self.work.ahead), max(0, room)))
        if not others:
            return None
        with self.decomposer.timed(len(K), on_device=True, kernels=len(others) + 1):
            return held.decompose(problem, K, others, self._blocks.square, self.eigh)

    def decomposition_of(self, K: FloatArray, found: Decomposed | None = None) -> Decomposition:
        """Return the decomposition of K (M, M) that the spec asks for; K is overwritten.

        `found` are its eigenvalues and eigenvectors where they are known already.
        """
        if not self.symmetric:
            from ntk_dist.solvers.schur import SchurDecomposition

            return SchurDecomposition(K)
        from ntk_dist.solvers.symmetric import quadratic_form

        self._form = quadratic_form(K, self.problem.targets)
        return self.decomposer(K, found)

    def kernel_blocks(self, groups: Sequence[str], *, borrowed: bool = False) -> tuple[FloatArray, FloatArray]:
        """Return the sums of the stored blocks of `groups`: K(train, train) (M, M) and K(eval, train) (M_eval, M).

        Of a symmetric kernel only the lower triangle is filled. The stage's method must be `dual`.

        Args:
            groups: of the layer set.
            borrowed: whether the second one will only be read, and no more once other blocks are asked for.
        """
        return self._blocks.square(groups), self._blocks.rows(groups, borrowed=borrowed)

    def _decompose_primal(self, groups: Sequence[str]) -> tuple[Decomposition, Iterable[FloatArray]]:
        train, evaluation = self._features(groups)
        p = next(train()).shape[1]
        decomposition = PrimalDecomposition(train, self.problem.size, p, decompose=self.decomposer)
        self.shares = primal_shares(groups, self._features, self.problem.residual)
        return decomposition, evaluation()

    def _features(self, groups: Sequence[str]) -> tuple[Blocks, Blocks]:
        """Return streams of the feature rows of some groups, for the training and for the evaluation examples."""

        def blocks(shards: Sequence[Artifact], n_examples: int) -> Blocks:
            return feature_blocks(
                shards,
                groups,
                kind=self.kernel.kind,
                outputs_per_example=self.problem.outputs_per_example,
                n_examples=n_examples,
                max_bytes=self.work.halved(BLOCK_BYTES),
            )

        return blocks(self.train, self.problem.n_train), blocks(self.eval, self.problem.n_eval)

    def numbers(self, groups: Sequence[str]) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """Return the scalars of a layer set, and its arrays of any length."""
        decomposition, rows = self.decompose(groups)
        kept = self.keep(decomposition, rows, variance_of=groups if self._has_variances else None)
        further = self.further.arrays(groups, kept, decomposition, rows)
        return self.spectrum_scalars(decomposition) | self.shares, kept.arrays() | further

    def facts(self) -> dict[str, Any]:
        """Return the facts about all layer sets together, after `numbers` was called for each of them."""
        return {}

    @property
    def _has_variances(self) -> bool:
        """Whether predictive variances are kept: where there is an evidence, and eigenvectors give them."""
        return EVIDENCE not in self.missing and self.kernel.eigenvectors

    def keep(
        self, decomposition: Decomposition, rows: Iterable[FloatArray], variance_of: Sequence[str] | None = None
    ) -> KeptPath:
        """Return the stored part of a decomposition.

        Args:
            decomposition: of the kernel of a layer set.
            rows: those from which evaluation outputs are predicted.
            variance_of: the groups of the layer set, for which predictive variances are kept; None keeps none.
        """
        dual = self.stage.parameters.method == "dual"
        return decomposition.keep(
            self.problem.residual,
            rows,
            leave_one_out="leave_one_out_loss" not in self.missing,
            rows_per_example=self.problem.rows_per_example,
            start=self.start,
            variance=variance_of is not None,
            diagonal=self._blocks.diagonal(variance_of) if dual and variance_of is not None else None,
        )

    def spectrum_scalars(self, decomposition: Decomposition) -> dict[str, float]:
        """Return the scalars of the spectrum, and those of the model before fine-tuning."""
        from ntk_dist.spectrum.spectrum import label_alignment, summarize

        summary = summarize(
            decomposition.eigenvalues,
            size=decomposition.size,
            trace=decomposition.trace,
            **summary_settings(self.stage.parameters.problem),
        )
        return {
            **asdict(summary),
            "kernel_size": decomposition.size,
            "label_alignment": label_alignment(decomposition, self.problem.targets, self._form),
            **self.problem.initial_scalars,
        }
