"""The kind `compare`: distances between the trained model and its trained linearization."""

from dataclasses import dataclass

from orchestrator.stages.finetune import CellsParameters, cells_label
from orchestrator.stages.parameters import ProblemParameters
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


def _label(stage: Stage[CompareParameters]) -> str:
    return f"compare {cells_label(stage.parameters.cells)}"


COMPARE = StageKind(
    name="compare",
    parameters=CompareParameters,
    version=5,
    meaning="compares the trained model with its trained linearization",
    module="orchestrator.stages.compare.compute",
    label=_label,
)
