"""The kind `capture`: the Jacobian rows of a shard of examples."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.stages.parameters import RowsParameters
from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class CaptureParameters:
    """Parameters of a stage `capture`.

    Attributes:
        rows: the rows.
        split: split of its examples.
        start: first example.
        stop: example after the last one.
    """

    rows: RowsParameters
    split: Literal["train", "eval"]
    start: int
    stop: int


def rows_memory(variant: "Variant") -> int:
    """Return the bytes of the rows of a batch, and of their copy on the way to the file."""
    sizes = variant.sizes
    return 2 * sizes.batch_examples * sizes.rows_per_example * sizes.n_parameters * sizes.row_bytes


def cost(stage: Stage[CaptureParameters], variant: "Variant") -> StageCost:
    """Return the cost of the rows of the shard's examples."""
    sizes = variant.sizes
    n = stage.parameters.stop - stage.parameters.start
    disk_bytes = n * sizes.rows_per_example * (sizes.n_parameters + 1) * sizes.row_bytes
    return StageCost(variant.row_flops(n), disk_bytes, rows_memory(variant))


def _label(stage: Stage[CaptureParameters]) -> str:
    p = stage.parameters
    return f"capture of {p.split} examples {p.start} to {p.stop - 1}, adapter seed {p.rows.scorer.adapter_seed}"


CAPTURE = StageKind(
    name="capture",
    parameters=CaptureParameters,
    version=2,
    meaning="computes the Jacobian rows of a shard of examples",
    module="orchestrator.stages.capture.compute",
    cost=cost,
    label=_label,
    runs_model=True,
    advice="lower compute.shard_examples, or raise the budget",
)
