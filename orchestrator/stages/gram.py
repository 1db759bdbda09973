"""The stage `gram`: the tiles of all groups' kernel blocks for one pair of shards."""

from orchestrator.stage import Stage
from orchestrator.stages.work import Product, Work
from orchestrator.store.artifacts import Artifact

COLUMNS_AT_ONCE = 2048
"""Columns of a Jacobian that are converted and multiplied at once; fixed, because it is part of the sum's order."""


def compute(stage: Stage, work: Work) -> Product:
    """Multiply the Jacobian rows of two shards, group by group.

    The facts hold the ranges of examples, [start, stop), that rows and columns of the tiles stand for.
    """
    from ntk_dist.gram import gram_tile

    left, right = work.input(stage, "left"), work.input(stage, "right")
    same = stage.inputs["left"] == stage.inputs["right"]
    p = stage.parameters
    outputs = p["outputs_per_example"]
    rows, columns = _rows(left) // outputs, _rows(right) // outputs
    file = work.new_arrays(stage, dict.fromkeys(p["groups"], ("float64", (rows, columns))))
    for group in p["groups"]:
        left_rows = left.array(group)
        right_rows = left_rows if same else right.array(group)
        tile = gram_tile(
            left_rows,
            right_rows,
            kind=p["kind"],
            outputs_per_example=outputs,
            accumulate=p["gram_dtype"],
            max_bytes=workspace_bytes(left_rows.shape[0], right_rows.shape[0], work.halved(COLUMNS_AT_ONCE)),
        )
        file.write(group, tile)
    return Product({"rows": _examples(left), "columns": _examples(right)}, file)


def workspace_bytes(left_rows: int, right_rows: int, columns: int = COLUMNS_AT_ONCE) -> int:
    """Return the memory that one product of tiles may take: result, partial result, and both sides in float64."""
    return 16 * left_rows * right_rows + 9 * (left_rows + right_rows) * columns


def _rows(shard: Artifact) -> int:
    return int(shard.facts["rows"])


def _examples(shard: Artifact) -> list[int]:
    return [shard.facts["start"], shard.facts["stop"]]
