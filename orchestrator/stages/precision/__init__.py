"""The kind `precision`: errors from half precision of the model, on a few training examples."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.stages.base.parameters import RowsParameters
from orchestrator.stages.base.scope import SeedScope
from orchestrator.stages.head import model_inputs
from orchestrator.store.stage import Stage, StageCost, StageKind
from orchestrator.sweep.passes import rows
from orchestrator.sweep.refinements import Groups

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


SAMPLE = 8
"""Number of first training examples whose rows in half precision are compared with those in float32."""


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
    return 2 * rows(variant, n, stage.parameters.rows.groups) + StageCost(
        # Rows in both precisions, and those of a group in float64.
        memory_bytes=4 * n * sizes.rows_per_example * sizes.n_parameters * sizes.row_bytes,
    )


def plan(scope: SeedScope) -> None:
    """Add the stage that measures the errors from half precision, where the model is in it."""
    for groups in scope.variant.rows_used:
        if stage := errors_of(scope, groups):
            scope.add(stage)


def errors_of(scope: SeedScope, groups: Groups) -> Stage[PrecisionParameters] | None:
    """Return the stage that measures the errors of rows, of one of the variant's `row_sets`; None where it has none."""
    if scope.scorer.dtype not in ("bfloat16", "float16"):
        return None
    smallest = scope.drawn_sets[0]
    parameters = PrecisionParameters(scope.rows_of(groups), min(SAMPLE, smallest))
    return Stage(PRECISION, parameters, model_inputs(scope, smallest))


PRECISION = StageKind(
    name="precision",
    parameters=PrecisionParameters,
    version=4,
    meaning="compares rows of the model in half precision with those in float32",
    module="orchestrator.stages.precision.compute",
    plan=plan,
    cost=cost,
    runs_model=True,
    advice="raise the budget, or ask for fewer layers",
)
