"""The problem of one solve stage: its kernels, their decompositions, and what is kept of these."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.decomposition import Decomposition
from ntk_dist.solvers.kept_path import KeptPath
from orchestrator.stages.context.blocks import BLOCK_BYTES, feature_blocks, kernel_blocks
from orchestrator.stages.context.problem import Problem, load_problem
from orchestrator.stages.context.work import Work
from orchestrator.stages.solve import SolveParameters
from orchestrator.stages.solve.fitted_start import load_start
from orchestrator.stages.solve.memory import SolveSize
from orchestrator.stages.solve.split import dual_shares, primal_shares
from orchestrator.stages.solve.sums import KernelSums, summation_order
from orchestrator.store.artifacts import Artifact
from orchestrator.store.stage import Stage
from orchestrator.sweep.error_estimates import missing_estimates

if TYPE_CHECKING:
    from ntk_dist.solvers.eigen import Eigh
    from ntk_dist.solvers.symmetric import SymmetricDecomposer


Blocks = Callable[[], Iterator[FloatArray]]


class Solver:
    """The problem of one solve stage, ready for layer set after layer set.

    Attributes:
        kernel: the section `kernel` of the spec.
        symmetric: whether its kernels are symmetric.
        problem: targets and initial outputs.
        start: how the initial outputs change without an example, where a head was fitted to its label.
        missing: reasons why `gcv` or `leave_one_out_loss` is nan, by column.
        shares: columns about the split of the kernel that was decomposed last; empty without the head.
        decomposer: decomposes symmetric kernels, and records why a GPU did not.
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
        self.tiles = work.inputs(stage, "tiles") if dual else []
        self.eval_tiles = work.inputs(stage, "eval_tiles") if dual else []
        self.shares: dict[str, float] = {}
        self.decomposer = self._decomposer()

    def _decomposer(self) -> "SymmetricDecomposer":
        from ntk_dist.solvers.symmetric import SymmetricDecomposer

        device_eigh: Eigh | None = None
        device = self.stage.parameters.problem.kernel_device
        if device.device_bytes is not None:
            from ntk_dist.solvers.device_eigen import DeviceEigh

            device_eigh = DeviceEigh(self.work.use_device(device.device))
        return SymmetricDecomposer(self.kernel.eigenvectors, device_eigh)

    def decompose(self, groups: Sequence[str]) -> tuple[Decomposition, Iterator[FloatArray]]:
        """Return the decomposition of a layer set, and the rows from which evaluation outputs are predicted."""
        if self.stage.parameters.method == "primal":
            return self._decompose_primal(groups)
        K, rows = self.kernel_blocks(groups)
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
        return self.decomposition_of(K), iter([rows])

    def decomposition_of(self, K: FloatArray) -> Decomposition:
        """Return the decomposition of K (M, M) that the spec asks for; K is overwritten."""
        if not self.symmetric:
            from ntk_dist.solvers.schur import SchurDecomposition

            return SchurDecomposition(K)
        return self.decomposer(K)

    def kernel_blocks(self, groups: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        """Return the sums of the stored blocks of `groups`: K(train, train) (M, M) and K(eval, train) (M_eval, M).

        Of a symmetric kernel only the lower triangle is filled. The stage's method must be `dual`.
        """
        M, M_eval, per_example = self.problem.size, self.problem.eval_size, self.problem.rows_per_example
        sums, order = self._sums(), summation_order(groups, kernel_blocks(self.tiles[0]))
        K = sums.square(self.tiles, order, M, per_example, symmetric=self.symmetric)
        return K, sums.rows(self.eval_tiles, order, (M_eval, M), per_example)

    def _sums(self) -> KernelSums:
        """Return the worker's sums for the problem, limited to the memory that the decomposition leaves."""
        problem, inputs = self.problem, self.stage.inputs
        size = SolveSize(
            self.kernel,
            decomposed=problem.size,
            primal=False,
            M=problem.size,
            M_eval=problem.eval_size,
            targets=problem.residual.shape[1],
            rows_per_example=problem.rows_per_example,
        )
        needed = size.memory_bytes(8 * problem.eval_size * problem.size)
        # No room after memory ran out, whatever the budget is.
        room = 0 if self.work.halvings else self.work.sweep.spec.compute.memory_budget - needed
        sums = self.work.shared(KernelSums)
        sums.use((inputs["tiles"], inputs["eval_tiles"], problem.n_train), max(0, room))
        return sums

    def _decompose_primal(self, groups: Sequence[str]) -> tuple[Decomposition, Iterator[FloatArray]]:
        from ntk_dist.solvers.primal import PrimalDecomposition

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
        return self.spectrum_scalars(decomposition) | self.shares, self.keep(decomposition, rows).arrays()

    def facts(self) -> dict[str, Any]:
        """Return the facts about all layer sets together, after `numbers` was called for each of them."""
        return {}

    def keep(self, decomposition: Decomposition, rows: Iterable[FloatArray]) -> KeptPath:
        """Return the stored part of a decomposition; `rows` are those from which evaluation outputs are predicted."""
        return decomposition.keep(
            self.problem.residual,
            rows,
            leave_one_out="leave_one_out_loss" not in self.missing,
            rows_per_example=self.problem.rows_per_example,
            start=self.start,
        )

    def spectrum_scalars(self, decomposition: Decomposition) -> dict[str, float]:
        """Return the scalars of the spectrum, and those of the model before fine-tuning."""
        from ntk_dist.spectrum.spectrum import label_alignment, summarize

        summary = summarize(
            decomposition.eigenvalues,
            size=decomposition.size,
            trace=decomposition.trace,
            **self.summary_settings(),
        )
        return {
            **asdict(summary),
            "kernel_size": decomposition.size,
            "label_alignment": label_alignment(decomposition, self.problem.targets),
            **self.problem.initial_scalars,
        }

    def summary_settings(self) -> dict[str, float]:
        """Return the settings of a spectrum's summary from the spec: two sigmas and two roundoffs."""
        from ntk_dist.spectrum.spectrum import machine_epsilon, products_eps

        problem = self.stage.parameters.problem
        return {
            "sigma": self.kernel.sigma,
            "relative_sigma": self.kernel.relative_sigma,
            "jacobian_eps": machine_epsilon(problem.scorer.dtype, problem.scorer.row_dtype),
            "gram_eps": products_eps(problem.gram_dtype, tf32=problem.kernel_device.tf32),
        }
