"""The kind `compare`: distances between the trained model and its trained linearization."""

from dataclasses import dataclass, replace

from orchestrator.stages.base.cells import Comparison, Solve
from orchestrator.stages.base.parameters import ProblemParameters
from orchestrator.stages.base.scope import Planning
from orchestrator.stages.compare.columns import TRAINING_COLUMNS, TRAJECTORIES, UPDATES
from orchestrator.stages.finetune import CellsParameters, cells_label, finetune_stage
from orchestrator.stages.finetune.planning import TrainedCells, trained_cells
from orchestrator.stages.finetune.shared_models import shared_models
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
    """Add for every cell its training in the model and in the linearization, and their comparison."""
    section = planning.sweep.spec.finetune
    if section is None:
        return
    solves = planning.filled_by(Solve)
    scopes = {(scope.position, scope.seed): scope for scope in planning.scopes}
    by_solve = [list(trained_cells(scopes[each.variant, each.seed], each)) for each in solves]
    cells = [each for of_solve in by_solve for each in of_solve]
    shared = iter(shared_models(section, cells, planning.sweep.spec.compute.memory_budget))
    for number, (solve, of_solve) in enumerate(zip(solves, by_solve, strict=True)):
        comparisons = []
        for each in of_solve:
            trained, run = next(shared)
            linearized = finetune_stage([each.linearized])
            comparison = _comparison(each, trained, run, linearized)
            for stage in (trained, linearized, comparison):
                planning.add(stage, solve.variant)
            comparisons.append(Comparison(comparison, each.layer_set, each.first, len(each.cells.lambdas)))
        solves[number] = replace(solve, comparisons=tuple(comparisons))


def _comparison(each: TrainedCells, trained: Stage, run: int, linearized: Stage) -> Stage[CompareParameters]:
    inputs = {**each.trained.inputs, "trained": (trained.ref,), "linearized": (linearized.ref,)}
    return Stage(COMPARE, CompareParameters(each.cells, run), inputs)


def _label(stage: Stage[CompareParameters]) -> str:
    return f"compare {cells_label(stage.parameters.cells)}"


COMPARE = StageKind(
    name="compare",
    parameters=CompareParameters,
    version=6,
    meaning="compares the trained model with its trained linearization",
    module="orchestrator.stages.compare.compute",
    plan_sweep=plan,
    label=_label,
    tables=(TRAJECTORIES, UPDATES),
    cell_columns=TRAINING_COLUMNS,
)
