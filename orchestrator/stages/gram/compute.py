"""The stage `gram`: the tiles of all groups' kernel blocks for one pair of shards."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.gram import GramParameters
from orchestrator.store.artifacts import Artifact
from orchestrator.store.stage import Stage
from orchestrator.sweep.sizes import COLUMNS_AT_ONCE, workspace_bytes

if TYPE_CHECKING:
    from ntk_dist.arrays import FloatArray
    from ntk_dist.kernel.rows import Rows


def compute(stage: Stage[GramParameters], work: Work) -> Product:
    """Multiply the Jacobian rows of two shards, group by group.

    The facts hold the ranges of examples, [start, stop), of the rows and the columns of the tiles.
    """
    left, right = work.input(stage, "left"), work.input(stage, "right")
    same = stage.inputs["left"] == stage.inputs["right"]
    p = stage.parameters
    outputs = p.outputs_per_example
    rows, columns = _rows(left) // outputs, _rows(right) // outputs
    multiply = _multiply(stage, work)
    file = work.new_arrays(stage, dict.fromkeys(p.groups, ("float64", (rows, columns))))
    for group in p.groups:
        left_rows = left.rows(group)
        right_rows = left_rows if same else right.rows(group)
        file.write({group: multiply(left_rows, right_rows)})
    return Product({"rows": _examples(left), "columns": _examples(right)}, file)


def _multiply(stage: Stage[GramParameters], work: Work) -> "Callable[[Rows, Rows], FloatArray]":
    """Return a function that computes a tile from Jacobian rows, with the device and precision of the parameters."""
    p = stage.parameters
    options: dict[str, Any] = {
        "kind": p.kind,
        "outputs_per_example": p.outputs_per_example,
        "accumulate": p.gram_dtype,
    }
    if p.kernel_device.device_bytes is not None:
        from ntk_dist.kernel.device_gram import device_gram_tile

        return partial(
            device_gram_tile,
            **options,
            tf32=p.kernel_device.tf32,
            max_bytes=work.halved(p.kernel_device.device_bytes),
            device=work.use_device(p.kernel_device.device),
        )
    from ntk_dist.kernel.gram import gram_tile

    def on_the_cpu(left: "Rows", right: "Rows") -> "FloatArray":
        max_bytes = workspace_bytes(left.shape[0], right.shape[0], work.halved(COLUMNS_AT_ONCE))
        return gram_tile(left, right, **options, max_bytes=max_bytes)

    return on_the_cpu


def _rows(shard: Artifact) -> int:
    return int(shard.facts["rows"])


def _examples(shard: Artifact) -> list[int]:
    return [shard.facts["start"], shard.facts["stop"]]
