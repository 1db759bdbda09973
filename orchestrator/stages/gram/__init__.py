"""The kind `gram`: the tiles of all groups' kernel blocks for one pair of shards."""

from typing import TYPE_CHECKING, Any

from orchestrator.store.stage import Stage, StageCost, StageKind
from orchestrator.sweep.sizes import workspace_bytes

if TYPE_CHECKING:
    from orchestrator.spec.compute_section import ComputeSection
    from orchestrator.sweep.variant import Variant

DEVICE_BYTES = 256 << 20
DEVICE_SHARE_OF_BUDGET = 4
"""Most GPU memory of a tile, in bytes and as a share of the memory budget: the same budget has to hold, on the host,
the rows that are on their way to the GPU."""


def on_device(compute: "ComputeSection") -> dict[str, Any]:
    """Return the parameters of stages whose numbers depend on the device that computes kernel blocks.

    The bytes that a tile may take there decide how it is divided, and so the order of its sums. They are a part of
    the memory budget, which therefore belongs to the numbers where it is small. On a processor there are none.
    """
    of_a_gpu = min(DEVICE_BYTES, compute.memory_budget // DEVICE_SHARE_OF_BUDGET)
    device_bytes = of_a_gpu if compute.device != "cpu" else None
    return {"device": compute.device, "device_bytes": device_bytes, "tf32": compute.tf32}


def cost(stage: Stage, variant: "Variant") -> StageCost:
    """Return the cost of the products of two shards' rows, of all groups."""
    sizes, p = variant.sizes, stage.parameters
    rows = min(sizes.shard_examples, sizes.n_train) * sizes.rows_per_example
    parameters = sum(n for g, n in zip(sizes.groups, sizes.group_parameters, strict=True) if g in p["groups"])
    kernel_rows = rows // p["outputs_per_example"]
    return StageCost(2.0 * rows * rows * parameters, kernel_rows**2 * 8 * len(p["groups"]), _memory(stage, variant))


def _memory(stage: Stage, variant: "Variant") -> int:
    sizes, device_bytes = variant.sizes, stage.parameters["device_bytes"]
    rows = min(sizes.shard_examples, max(sizes.n_train, sizes.n_eval)) * sizes.rows_per_example
    mapped = 2 * rows * max(sizes.group_parameters) * sizes.row_bytes
    if device_bytes is not None:
        # The tile, and two chunks of rows on their way to the GPU.
        return mapped + 8 * rows * rows + 2 * int(device_bytes)
    return mapped + workspace_bytes(rows, rows)


GRAM = StageKind(
    name="gram",
    version=1,
    meaning="multiplies the rows of two shards: a tile of each group's kernel block",
    module="orchestrator.stages.gram.compute",
    cost=cost,
    advice="lower compute.shard_examples, or raise the budget",
)
