"""The kind `precision`: errors from half precision of the model, on a few training examples."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.stages.parameters import RowsParameters
from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class PrecisionParameters:
    """Parameters of a stage `precision`.

    Attributes:
        rows: the rows.
        examples: first training examples that are compared.
    """

    rows: RowsParameters
    examples: int


def cost(stage: Stage[PrecisionParameters], variant: "Variant") -> StageCost:
    """Return the cost of rows in both precisions."""
    sizes, n = variant.sizes, stage.parameters.examples
    return StageCost(
        flops=2 * variant.row_flops(n),
        # Rows in both precisions, and those of a group in float64.
        memory_bytes=4 * n * sizes.rows_per_example * sizes.n_parameters * sizes.row_bytes,
    )


PRECISION = StageKind(
    name="precision",
    parameters=PrecisionParameters,
    version=3,
    meaning="compares rows of the model in half precision with those in float32",
    module="orchestrator.stages.precision.compute",
    cost=cost,
    runs_model=True,
    advice="raise the budget, or ask for fewer layers",
)
