"""Costs of tiles: products, rows that are made or read for them, and the memory that both take."""

from functools import cache

from orchestrator.stages.gram import GramParameters
from orchestrator.store.stage import Stage, StageCost
from orchestrator.sweep import passes
from orchestrator.sweep.sizes import workspace_bytes
from orchestrator.sweep.variant import Variant


def gram_cost(stage: Stage[GramParameters], variant: Variant) -> StageCost:
    """Return the cost of the products of two shards' rows, of all blocks, and of rows that are made for them."""
    sizes, p = variant.sizes, stage.parameters
    left, right = p.rows * sizes.rows_per_example, p.columns * sizes.rows_per_example
    parameters = sizes.parameters_of(_groups(p))
    kernel_rows = left // p.outputs_per_example
    written = 8 * len(p.blocks) * kernel_rows * (right // p.outputs_per_example + p.own_rows)
    read = 0 if stage.within else int(_rows_read(stage, variant, left, right) * parameters * sizes.row_bytes)
    memory, device = _memory(stage, variant)
    products = StageCost(
        product_flops=2.0 * left * right * parameters,
        read_bytes=read,
        written_bytes=written,
        moved_bytes=0 if p.kernel_device.device_bytes is None else read + written,
        memory_bytes=memory,
        device_bytes=device,
    )
    if stage.within and _makes_left_rows(stage, variant):
        return products + passes.rows(variant, p.rows, _groups(p))
    return products


def _groups(p: GramParameters) -> set[str]:
    """Return the groups of all blocks."""
    return {group for block in p.blocks for group in block}


def _makes_left_rows(stage: Stage[GramParameters], variant: Variant) -> bool:
    """Tell whether it is the first tile of its panel that has these rows, which are then held for the others."""
    column = variant.sizes.shards_of(int(stage.within[-1].parameters.start))
    return column % variant.rows_place.panel_shards == 0


def _rows_read(stage: Stage[GramParameters], variant: Variant, left: int, right: int) -> float:
    """Return how many of the rows of its two sides a tile reads from the disk, on average, if one worker makes all."""
    sizes = variant.sizes
    if _held(stage, variant) <= 2:
        return left if stage.inputs["left"] == stage.inputs["right"] else left + right
    shards = len(sizes.train_shards), len(sizes.eval_shards)
    return left * _mean_reads(*shards, variant.rows_place.panel_shards, stage.parameters.kind != "asymmetric_sign")


def _held(stage: Stage[GramParameters], variant: Variant) -> int:
    """Return how many shards of stored rows stay in memory while tiles are made."""
    room = variant.sweep.spec.compute.memory_budget - _making(stage, variant)
    return max(0, room) // variant.sizes.shard_bytes


def _making(stage: Stage[GramParameters], variant: Variant) -> int:
    p, per_example = stage.parameters, variant.sizes.rows_per_example
    return making_bytes(p, p.rows * per_example, p.columns * per_example)


@cache
def _mean_reads(n_train: int, n_eval: int, panel: int, symmetric: bool) -> float:
    """Return how often a shard is read for each tile, where those of a panel stay in memory until it is done."""
    starts = range(0, n_train, panel)
    read = sum(n_train - (start if symmetric else 0) + n_eval for start in starts)
    tiles = n_train * (n_train + 1) // 2 if symmetric else n_train**2
    return read / (tiles + n_train * n_eval)


def making_bytes(p: GramParameters, rows: int, columns: int) -> int:
    """Return the memory on the host in which a tile is made of Jacobian rows on two sides, these left out."""
    device_bytes = p.kernel_device.device_bytes
    if device_bytes is None:
        return workspace_bytes(rows, columns)
    # the tile, and two chunks of rows on their way to the GPU
    return 8 * rows * columns + 2 * device_bytes


def _memory(stage: Stage[GramParameters], variant: Variant) -> tuple[int, int]:
    """Return the most bytes on the host and on a GPU."""
    sizes, device_bytes = variant.sizes, stage.parameters.kernel_device.device_bytes
    rows = min(sizes.shard_examples, max(sizes.n_train, sizes.n_eval)) * sizes.rows_per_example
    most = stage.together.held if stage.together else len(stage.within)
    of_a_shard = rows * sizes.parameters_of(_groups(stage.parameters)) * sizes.row_bytes
    processes = variant.sweep.spec.group_size  # each has a part of what is held, and once more that of another process
    held = min(most, len(sizes.train_shards) + 1) + int(processes > 1)
    resident = held * -(-of_a_shard // processes) + sizes.batch_bytes
    read = 2 * rows * max(sizes.group_parameters) * sizes.row_bytes
    if not stage.within and (most_read := _held(stage, variant)) > 2:
        kept = min(most_read, len(sizes.train_shards) + len(sizes.eval_shards)) * sizes.shard_bytes
        return _making(stage, variant) + kept, device_bytes or 0
    making = making_bytes(stage.parameters, rows, rows)
    if device_bytes is None:
        return making + (resident if stage.within else read), 0
    return (making, device_bytes + resident) if stage.within else (making + read, device_bytes)
