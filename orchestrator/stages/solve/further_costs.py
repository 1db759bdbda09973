"""Costs of contributions and of trajectories, beside those of the decomposition that gives them."""

from orchestrator.stages.solve import FlowParameters, SolveParameters
from orchestrator.stages.solve.flow_memory import TRAINED_BY, lambda_bytes, lambdas_at_once
from orchestrator.stages.solve.memory import SolveSize
from orchestrator.store.stage import Stage, StageCost
from orchestrator.sweep.blocks import blocks_within
from orchestrator.sweep.layer_sets import LayerSet
from orchestrator.sweep.variant import Variant


def further_cost(
    stage: Stage[SolveParameters], variant: Variant, layer_set: LayerSet, size: SolveSize, bases: tuple[int, int]
) -> StageCost:
    """Return what a layer set costs beside its decomposition.

    Args:
        stage: the stage.
        variant: what it belongs to.
        layer_set: the layer set.
        size: of its problem.
        bases: how many bases span the solutions of all lambdas, and the most vectors of one.
    """
    cost = StageCost()
    if stage.parameters.contributions:
        cost += _contributions(variant, layer_set, size, bases)
    if stage.parameters.flow is not None:
        cost += _flow(stage.parameters.flow, variant, size)
    return cost


def _contributions(variant: Variant, layer_set: LayerSet, size: SolveSize, bases: tuple[int, int]) -> StageCost:
    sizes, (t, m) = variant.sizes, bases
    M, p = size.M, size.decomposed
    if size.primal:
        groups = len(layer_set.groups)
        arrays = 8 * (2 * groups * m * m + (M + p) * m)
        read = size.rows_per_example * (M // size.rows_per_example) * layer_set.n_parameters * sizes.row_bytes
        flops = 2.0 * m * (p * p + M * p) + 2.0 * m * m * (M * groups + p)
        return StageCost(product_flops=flops, read_bytes=read, written_bytes=16 * groups * m * m, memory_bytes=arrays)
    blocks = len(blocks_within(layer_set.groups, variant.blocks))
    kept = 8 * blocks * t * m * m
    # A block is read where the decomposition was; beside it are the vectors and their products.
    return StageCost(
        product_flops=blocks * (2.0 * M * M * t * m + 2.0 * M * t * m * m),
        read_bytes=8 * blocks * (M * (M + 1) // 2),
        written_bytes=kept,
        memory_bytes=kept + 2 * 8 * M * t * m,
    )


def _flow(flow: FlowParameters, variant: Variant, size: SolveSize) -> StageCost:
    q, k, n_lambdas = size.decomposed, size.targets, len(flow.lambdas) + 1
    columns = len(TRAINED_BY) * n_lambdas * len(flow.times) * k
    at_once = min(n_lambdas, lambdas_at_once(flow, size.M, size.M_eval, k))
    applied = size.M + size.M_eval if size.primal else size.M_eval
    read = 0
    if size.primal:
        rows = variant.sizes.row_bytes * (size.M + size.M_eval) * q // variant.sizes.features_per_parameter
        read = rows * -(-n_lambdas // at_once)
    return StageCost(
        # residuals and coefficients from the modes, and the outputs from these
        product_flops=2.0 * columns * q * (2 * q + applied),
        read_bytes=read,
        # losses, |d| and up to three metrics of both splits
        written_bytes=8 * 9 * columns // k,
        # the factors of each mode, and copies of arrays while they are put together
        memory_bytes=4 * at_once * lambda_bytes(flow, max(size.M, q), size.M_eval, k),
    )
