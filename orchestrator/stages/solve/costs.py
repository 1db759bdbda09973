"""Costs of solve stages: a factorization of the kernel, or some vectors and many passes over its tiles."""

from dataclasses import replace

from orchestrator.stages.context.blocks import BLOCK_BYTES
from orchestrator.stages.solve import SolveParameters
from orchestrator.stages.solve.further_costs import further_cost
from orchestrator.stages.solve.memory import SolveSize
from orchestrator.store.stage import Stage, StageCost
from orchestrator.sweep.blocks import blocks_within
from orchestrator.sweep.layer_sets import LayerSet
from orchestrator.sweep.sizes import Sizes
from orchestrator.sweep.variant import Variant


def solve_cost(stage: Stage[SolveParameters], variant: Variant) -> StageCost:
    """Return the cost of a stage: FLOPs and bytes of all its layer sets, and the memory of the largest."""
    by_groups = {layer_set.groups: layer_set for layer_set in variant.layer_sets}
    layer_sets = [by_groups[groups] for groups in stage.parameters.layer_sets]
    each = sum((_layer_set_cost(stage, variant, layer_set) for layer_set in layer_sets), StageCost())
    further = [_further(stage, variant, layer_set) for layer_set in layer_sets]
    memory = (_layer_set_memory(stage, variant, layer_set) for layer_set in layer_sets)
    both = sum((replace(cost, memory_bytes=0) for cost in further), each)
    return both + StageCost(
        memory_bytes=max(own + cost.memory_bytes for own, cost in zip(memory, further, strict=True)),
    )


def _further(stage: Stage[SolveParameters], variant: Variant, layer_set: LayerSet) -> StageCost:
    size = _solve_size(stage, variant, layer_set)
    bases = (1, size.vectors) if stage.parameters.iterative is None else (size.targets, _spanning(size.M))
    return further_cost(stage, variant, layer_set, size, bases)


def _layer_set_memory(stage: Stage[SolveParameters], variant: Variant, layer_set: LayerSet) -> int:
    sizes = variant.sizes
    n_train = stage.parameters.problem.n_train
    M, M_eval = sizes.kernel_rows(n_train), sizes.kernel_rows(sizes.n_eval)
    if stage.parameters.iterative is not None:
        return _iterative_memory(sizes, M, M_eval, len(stage.parameters.layer_sets))
    size = _solve_size(stage, variant, layer_set)
    rows = BLOCK_BYTES if size.primal else 8 * M_eval * M
    return size.memory_bytes(rows) + _start_memory(stage, variant, layer_set)


def _solve_size(stage: Stage[SolveParameters], variant: Variant, layer_set: LayerSet) -> SolveSize:
    sizes = variant.sizes
    M = sizes.kernel_rows(stage.parameters.problem.n_train)
    primal = stage.parameters.method == "primal"
    return SolveSize(
        kernel=stage.parameters.problem.kernel,
        decomposed=layer_set.n_parameters * sizes.features_per_parameter if primal else M,
        primal=primal,
        M=M,
        M_eval=sizes.kernel_rows(sizes.n_eval),
        targets=_targets(sizes),
        rows_per_example=sizes.kernel_rows_per_example,
    )


def _start_memory(stage: Stage[SolveParameters], variant: Variant, layer_set: LayerSet) -> int:
    """Return the bytes of the arrays of a head's fit, and of their products with the decomposition."""
    if "left_out" not in stage.inputs:
        return 0
    sizes, survey = variant.sizes, variant.survey
    n, R = stage.parameters.problem.n_train, sizes.kernel_rows_per_example
    q = min(sizes.n_train, survey.model.hidden_size) + 1
    size = n * R
    if stage.parameters.method == "primal":
        size = layer_set.n_parameters * sizes.features_per_parameter
    return 8 * q * int(n * (1 + survey.n_outputs) + 3 * R * size)


def _layer_set_cost(stage: Stage[SolveParameters], variant: Variant, layer_set: LayerSet) -> StageCost:
    sizes = variant.sizes
    M = sizes.kernel_rows(stage.parameters.problem.n_train)
    if stage.parameters.iterative is not None:
        return _iterative_cost(stage, variant, layer_set)
    solve = _solve_size(stage, variant, layer_set)
    size = solve.decomposed
    # sytrd takes 4/3 n^3; eigenvectors about 9 n^3 (Golub and Van Loan, table 8.3.1 and section 8.3.5).
    decomposition = (9.0 if variant.sweep.spec.kernel.eigenvectors else 4 / 3) * size**3
    return StageCost(
        memory_flops=decomposition,
        product_flops=4.0 * size * size * solve.vectors
        + (2.0 * M * size * size if solve.primal else 0.0)
        + (2.0 * solve.M_eval * size * size if variant.sweep.spec.kernel.eigenvectors else 0.0),
        read_bytes=_read_bytes(stage, variant, layer_set),
        written_bytes=solve.kept_bytes,
    )


def _read_bytes(stage: Stage[SolveParameters], variant: Variant, layer_set: LayerSet) -> int:
    """Return the bytes of the blocks of a layer set, or of its rows, that are read once."""
    sizes, n_train = variant.sizes, stage.parameters.problem.n_train
    if stage.parameters.method == "primal":
        rows = (n_train + sizes.n_eval) * sizes.rows_per_example
        return rows * layer_set.n_parameters * sizes.row_bytes
    M, M_eval = sizes.kernel_rows(n_train), sizes.kernel_rows(sizes.n_eval)
    blocks = blocks_within(layer_set.groups, variant.blocks)
    return 8 * len(blocks) * (M * (M + 1) // 2 + M_eval * M)


def _iterative_memory(sizes: Sizes, M: int, M_eval: int, n_sets: int) -> int:
    """Return the most bytes that kernels of M rows need, with M_eval rows for evaluation.

    Two tiles; the vectors of the largest of three Lanczos processes (for the ridge path one for each target, one for
    each random probe, one for both ends of the spectrum) with three more for each vector that is multiplied, or those
    that span the solutions of all lambdas, with what they are multiplied to; and what is kept of other layer sets.
    """
    from ntk_dist.solvers.krylov_ridge import RIDGE_STEPS
    from ntk_dist.spectrum.extremes import COUNT, EXTREMES_STEPS
    from ntk_dist.spectrum.spectral_density import DENSITY_STEPS, PROBES

    targets, spanning = _targets(sizes), _spanning(M)
    vectors = max(
        targets * (min(M, RIDGE_STEPS) + 3 + spanning),
        2 * targets * spanning + 2 * spanning + 1,
        PROBES * (min(M, DENSITY_STEPS) + 3),
        min(M, EXTREMES_STEPS) + 3 + 6 * COUNT,
    )
    tile = sizes.kernel_rows(min(sizes.shard_examples, max(sizes.n_train, sizes.n_eval))) ** 2
    beside = targets * (spanning * M_eval + (1 + 2 * spanning) ** 2)
    return 8 * (2 * tile + vectors * M + beside) + (n_sets - 1) * _iterative_kept(sizes, M)


def _iterative_kept(sizes: Sizes, M: int) -> int:
    """Return the most bytes of the arrays that give the path of any lambda."""
    from ntk_dist.solvers.krylov_ridge import RIDGE_STEPS

    q, m = min(M, RIDGE_STEPS), _spanning(M)
    rows = M + sizes.kernel_rows(sizes.n_eval) + q
    return 8 * _targets(sizes) * (m * rows + 2 * q + min(M, 1 + 2 * m) * (1 + 2 * m))


def _spanning(M: int) -> int:
    """Return the most vectors that span the solutions of a target for all lambdas."""
    from ntk_dist.solvers.krylov_ridge import RIDGE_STEPS
    from ntk_dist.solvers.lambda_nodes import MOST_NODES

    return min(M, RIDGE_STEPS, MOST_NODES + 1)


def _iterative_cost(stage: Stage[SolveParameters], variant: Variant, layer_set: LayerSet) -> StageCost:
    """Return the most that the multiplications with a kernel take.

    Steps end early once the path of the lowest lambda or an eigenvalue has converged, which cannot be predicted.
    """
    from ntk_dist.solvers.krylov_ridge import RIDGE_STEPS
    from ntk_dist.spectrum.extremes import COUNT, EXTREMES_STEPS
    from ntk_dist.spectrum.spectral_density import DENSITY_STEPS, PROBES

    sizes = variant.sizes
    M = sizes.kernel_rows(stage.parameters.problem.n_train)
    targets, nodes = _targets(sizes), PROBES * min(M, DENSITY_STEPS)
    products = targets * (min(M, RIDGE_STEPS) + _spanning(M) + 1) + nodes + min(M, EXTREMES_STEPS) + 2 * COUNT
    predicted = 2.0 * M * sizes.kernel_rows(sizes.n_eval) * targets * _spanning(M)
    # The grid has 20 points for each power of ten; double precision spans about 16 of them above a noise floor.
    disk = 8 * (2 * nodes + 2 * 20 * 20 + 4 * COUNT + 45)
    return StageCost(
        memory_flops=2.0 * M * M * products + predicted,
        read_bytes=_read_bytes(stage, variant, layer_set),
        written_bytes=disk + _iterative_kept(sizes, M),
    )


def _targets(sizes: Sizes) -> int:
    """Return the number of targets of a kernel row: C for the trace-averaged kernel, else 1."""
    return sizes.features_per_parameter
