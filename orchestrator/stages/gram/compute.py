"""The stage `gram`: the tiles of all kernel blocks for one pair of shards."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from orchestrator.stages.context.blocks import SCORES
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.gram import GramParameters
from orchestrator.stages.gram.shards import HeldShards, Shard
from orchestrator.store.stage import Stage
from orchestrator.sweep.blocks import block_name
from orchestrator.sweep.sizes import COLUMNS_AT_ONCE, workspace_bytes

if TYPE_CHECKING:
    from ntk_dist.arrays import FloatArray
    from ntk_dist.kernel.rows import AnyRows, Rows


def compute(stage: Stage[GramParameters], work: Work) -> Product:
    """Multiply the Jacobian rows of two shards, block by block.

    The artifact holds an array a block, the sum over its groups, and `scores`, the initial outputs of the examples of
    the rows. The facts hold the ranges of examples, [start, stop), of the rows and the columns of the tiles.
    """
    left, right = work.shared(HeldShards).sides(stage, work)
    p = stage.parameters
    outputs = p.outputs_per_example
    rows, columns = int(left.facts["rows"]) // outputs, int(right.facts["rows"]) // outputs
    multiply = _multiply(stage, work)
    scores = left.scores
    layout = {block_name(block): ("float64", (rows, columns)) for block in p.blocks}
    file = work.new_arrays(stage, layout | {SCORES: (scores.dtype.name, scores.shape)})
    for block in p.blocks:
        file.write({block_name(block): multiply([_rows(left, right, group) for group in block])})
    file.write({SCORES: scores})
    return Product({"rows": _examples(left), "columns": _examples(right)}, file)


def _rows(left: Shard, right: Shard, group: str) -> "tuple[AnyRows, AnyRows]":
    """Return the rows of a group on both sides; the same object twice on the diagonal."""
    rows = left.rows(group)
    return rows, rows if left is right else right.rows(group)


def _multiply(stage: Stage[GramParameters], work: Work) -> "Callable[[Sequence[tuple[AnyRows, AnyRows]]], FloatArray]":
    """Return a function that computes a block of a tile, with the device and precision of the parameters.

    It takes the Jacobian rows of both sides of each group of the block.
    """
    p = stage.parameters
    options: dict[str, Any] = {
        "kind": p.kind,
        "outputs_per_example": p.outputs_per_example,
        "accumulate": p.gram_dtype,
    }
    if p.kernel_device.device_bytes is not None:
        from ntk_dist.kernel.device_gram import device_gram_sum

        return partial(
            device_gram_sum,
            **options,
            tf32=p.kernel_device.tf32,
            max_bytes=work.halved(p.kernel_device.device_bytes),
            device=work.use_device(p.kernel_device.device),
        )
    from ntk_dist.kernel.gram import gram_tile

    def tile(left: "AnyRows", right: "AnyRows") -> "FloatArray":
        max_bytes = workspace_bytes(left.shape[0], right.shape[0], work.halved(COLUMNS_AT_ONCE))
        return gram_tile(cast("Rows", left), cast("Rows", right), **options, max_bytes=max_bytes)

    def on_the_cpu(pairs: "Sequence[tuple[AnyRows, AnyRows]]") -> "FloatArray":
        total = tile(*pairs[0])
        for left, right in pairs[1:]:
            total += tile(left, right)
        return total

    return on_the_cpu


def _examples(shard: Shard) -> list[int]:
    return [shard.facts["start"], shard.facts["stop"]]
