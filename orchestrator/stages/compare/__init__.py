"""The kind `compare`: distances between the trained model and its trained linearization."""

from dataclasses import dataclass, replace

from orchestrator.stages.base.cells import Comparison, Solve
from orchestrator.stages.base.parameters import ProblemParameters
from orchestrator.stages.base.scope import Planning
from orchestrator.stages.compare.columns import TRAINING_COLUMNS, TRAJECTORIES, UPDATES
from orchestrator.stages.finetune import CellsParameters, cells_label, finetune_stage
from orchestrator.stages.finetune.planning import trained_layer_sets
from orchestrator.stages.finetune.stacks import StackedCells, stacked
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
    if planning.sweep.spec.finetune is None:
        return
    solves = planning.filled_by(Solve)
    scopes = {(scope.position, scope.seed): scope for scope in planning.scopes}
    by_solve = [list(trained_layer_sets(scopes[each.variant, each.seed], each)) for each in solves]
    stacks = iter(stacked(planning, [each for of_solve in by_solve for each in of_solve]))
    places = {strength: position for position, strength in enumerate(planning.sweep.spec.grid.lambdas.numbers())}
    for number, (solve, of_solve) in enumerate(zip(solves, by_solve, strict=True)):
        comparisons = []
        for layer_set in of_solve:
            for each in next(stacks):
                linearized = finetune_stage([each.cells.linearized])
                comparison = _comparison(each, linearized)
                for stage in (each.stage, linearized, comparison):
                    planning.add(stage, solve.variant)
                in_grid = tuple(places.get(strength) for strength in each.cells.lambdas)
                comparisons.append(Comparison(comparison, layer_set.position, in_grid))
        solves[number] = replace(solve, comparisons=tuple(comparisons))


def _comparison(each: StackedCells, linearized: Stage) -> Stage[CompareParameters]:
    runs = {"trained": (each.stage.ref,), "linearized": (linearized.ref,)}
    return Stage(COMPARE, CompareParameters(each.cells.cells, each.run), {**each.cells.trained.inputs, **runs})


def _label(stage: Stage[CompareParameters]) -> str:
    return f"compare {cells_label(stage.parameters.cells)}"


COMPARE = StageKind(
    name="compare",
    parameters=CompareParameters,
    version=7,
    meaning="compares the trained model with its trained linearization",
    module="orchestrator.stages.compare.compute",
    plan_sweep=plan,
    label=_label,
    tables=(TRAJECTORIES, UPDATES),
    cell_columns=TRAINING_COLUMNS,
)
