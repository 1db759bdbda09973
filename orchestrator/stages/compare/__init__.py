"""The kind `compare`: distances between the trained model and its trained linearization."""

from dataclasses import dataclass

from orchestrator.stages.base.parameters import ProblemParameters
from orchestrator.stages.base.scope import Planning
from orchestrator.stages.finetune import CellsParameters, cells_label
from orchestrator.store.stage import Stage, StageKind


@dataclass(frozen=True)
class CompareParameters:
    """Parameters of a stage `compare`.

    Attributes:
        cells: the cells.
        run: number of their run among those of the stage that trained the model.
    """

    cells: CellsParameters
    run: int

    @property
    def problem(self) -> ProblemParameters:
        """The regression problem."""
        return self.cells.problem


def plan(planning: Planning) -> None:
    """Add the training of all cells and its comparisons, where the spec trains."""
    from orchestrator.stages.compare.plan import plan_comparisons

    if planning.sweep.spec.finetune is not None:
        plan_comparisons(planning, planning.sweep.spec.finetune)


def _label(stage: Stage[CompareParameters]) -> str:
    return f"compare {cells_label(stage.parameters.cells)}"


COMPARE = StageKind(
    name="compare",
    parameters=CompareParameters,
    version=5,
    meaning="compares the trained model with its trained linearization",
    module="orchestrator.stages.compare.compute",
    plan_sweep=plan,
    label=_label,
)
