"""The stage `gram`: the tiles of all kernel blocks for one pair of shards."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from orchestrator.stages.context.blocks import DIAGONAL, SCORES
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.gram import GramParameters
from orchestrator.stages.gram.shards import HeldShard, HeldShards, Shard
from orchestrator.store.stage import Stage
from orchestrator.sweep.blocks import block_name
from orchestrator.sweep.sizes import COLUMNS_AT_ONCE, workspace_bytes

if TYPE_CHECKING:
    from ntk_dist.arrays import FloatArray
    from ntk_dist.kernel.rows import AnyRows, Rows
    from orchestrator.stages.gram.divided import DividedProducts


def compute(stage: Stage[GramParameters], work: Work) -> Product:
    """Multiply the Jacobian rows of two shards, block by block.

    The artifact holds an array a block, the sum over its groups, and `scores`, the initial outputs of the examples of
    the rows; where `own_rows` asks for them, for each block also `diagonal:<block>`, those examples' own blocks. The
    facts hold the ranges of examples, [start, stop), of the rows and the columns of the tiles.
    """
    left, right = work.shared(HeldShards).sides(stage, work)
    p = stage.parameters
    outputs = p.outputs_per_example
    rows, columns = int(left.facts["rows"]) // outputs, int(right.facts["rows"]) // outputs
    multiply, divided = _multiply(stage, work), _divided(stage, work, left, right)
    scores = left.scores
    file = work.new_arrays(stage, _layout(p, (rows, columns)) | {SCORES: (scores.dtype.name, scores.shape)})
    leads = work.process_group.leads
    for block in p.blocks:
        pairs = [_rows(left, right, group) for group in block]
        tile = divided.tile(pairs, multiply) if divided else multiply(pairs)
        if leads:
            file.write({block_name(block): tile})
    if p.own_rows:
        make = partial(_diagonals, stage, work, left)
        found = divided.diagonals(len(p.blocks), make) if divided else make(rows // p.own_rows)
        names = [DIAGONAL + block_name(block) for block in p.blocks]
        if leads:
            file.write(dict(zip(names, found, strict=True)))
    if leads:
        file.write({SCORES: scores})
    return Product({"rows": _examples(left), "columns": _examples(right)}, file)


def _divided(stage: Stage[GramParameters], work: Work, left: Shard, right: Shard) -> "DividedProducts | None":
    """Return the products of rows that the processes of a group hold apart; None where this process has all rows."""
    if work.process_group.size == 1:
        return None
    from orchestrator.stages.gram.divided import DividedProducts

    assert isinstance(left, HeldShard)
    assert isinstance(right, HeldShard)
    examples = len(left.scores)
    p = stage.parameters
    return DividedProducts(
        work.process_group,
        left.resident.owned,
        right.resident.owned,
        int(left.facts["rows"]) // p.outputs_per_example // examples,
        int(left.facts["rows"]) // examples,
        left is right and p.kind != "asymmetric_sign",
    )


def _layout(p: GramParameters, tile: tuple[int, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtypes and shapes of the arrays of blocks, of tiles of a shape."""
    layout: dict[str, tuple[str, tuple[int, ...]]] = {block_name(block): ("float64", tile) for block in p.blocks}
    if p.own_rows:
        own = (tile[0] // p.own_rows, p.own_rows, p.own_rows)
        layout |= {DIAGONAL + block_name(block): ("float64", own) for block in p.blocks}
    return layout


def _rows(left: Shard, right: Shard, group: str) -> "tuple[AnyRows, AnyRows]":
    """Return the rows of a group on both sides; the same object twice on the diagonal."""
    rows = left.rows(group)
    return rows, rows if left is right else right.rows(group)


def _multiply(stage: Stage[GramParameters], work: Work) -> "Callable[[Sequence[tuple[AnyRows, AnyRows]]], FloatArray]":
    """Return a function that computes a block of a tile, with the device and precision of the parameters.

    It takes the Jacobian rows of both sides of each group of the block.
    """
    if stage.parameters.kernel_device.device_bytes is not None:
        from ntk_dist.kernel.device_gram import device_gram_sum

        return partial(device_gram_sum, **_on_a_device(stage, work))
    from ntk_dist.kernel.gram import gram_tile

    options = _options(stage)

    def tile(left: "AnyRows", right: "AnyRows") -> "FloatArray":
        max_bytes = workspace_bytes(left.shape[0], right.shape[0], work.halved(COLUMNS_AT_ONCE))
        return gram_tile(cast("Rows", left), cast("Rows", right), **options, max_bytes=max_bytes)

    def on_the_cpu(pairs: "Sequence[tuple[AnyRows, AnyRows]]") -> "FloatArray":
        total = tile(*pairs[0])
        for left, right in pairs[1:]:
            total += tile(left, right)
        return total

    return on_the_cpu


def _diagonals(stage: Stage[GramParameters], work: Work, shard: Shard, examples: int) -> "FloatArray":
    """Return for each of B blocks the products of each example's own rows, (B, n, r, r), for n `examples`."""
    r = stage.parameters.own_rows
    # One group after the other: rows on the disk are in memory while something holds them.
    blocks = [map(shard.rows, block) for block in stage.parameters.blocks]
    if stage.parameters.kernel_device.device_bytes is not None:
        from ntk_dist.kernel.device_gram import device_gram_diagonals

        return device_gram_diagonals(blocks, examples=examples, kernel_rows=r, **_on_a_device(stage, work))
    from ntk_dist.kernel.gram import gram_diagonal

    options = _options(stage) | {"kernel_rows": r}

    def of(rows: "AnyRows") -> "FloatArray":
        max_bytes = workspace_bytes(rows.shape[0], r, work.halved(COLUMNS_AT_ONCE))
        return gram_diagonal(cast("Rows", rows), **options, max_bytes=max_bytes)

    return np.stack([sum(map(of, groups), start=np.zeros((examples, r, r))) for groups in blocks])


def _options(stage: Stage[GramParameters]) -> dict[str, Any]:
    """Return the arguments of products that every device takes."""
    p = stage.parameters
    return {"kind": p.kind, "outputs_per_example": p.outputs_per_example, "accumulate": p.gram_dtype}


def _on_a_device(stage: Stage[GramParameters], work: Work) -> dict[str, Any]:
    """Return the arguments of products on a device."""
    device = stage.parameters.kernel_device
    assert device.device_bytes is not None
    return _options(stage) | {
        "tf32": device.tf32,
        "max_bytes": work.halved(device.device_bytes),
        "device": work.use_device(device.device),
    }


def _examples(shard: Shard) -> list[int]:
    return [shard.facts["start"], shard.facts["stop"]]
