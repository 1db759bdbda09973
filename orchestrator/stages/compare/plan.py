"""The stages that train cells and compare the model with its linearization, for all seeds and variants together."""

from dataclasses import replace

from orchestrator.spec.finetune_section import FinetuneSection
from orchestrator.stages.base.cells import Comparison, Solve
from orchestrator.stages.base.scope import Planning
from orchestrator.stages.compare import COMPARE, CompareParameters
from orchestrator.stages.finetune import finetune_stage
from orchestrator.stages.finetune.plan import TrainedCells, shared_models, trained_cells
from orchestrator.store.stage import Stage


def plan_comparisons(planning: Planning, section: FinetuneSection) -> None:
    """Add for every cell its training in the model and in the linearization, and their comparison."""
    solves = planning.of(Solve)
    scopes = {(scope.position, scope.seed): scope for scope in planning.scopes}
    by_solve = [list(trained_cells(scopes[each.variant, each.seed], section, each)) for each in solves]
    budget = planning.sweep.spec.compute.memory_budget
    shared = shared_models(section, [each for cells in by_solve for each in cells], budget)
    for number, (solve, cells) in enumerate(zip(solves, by_solve, strict=True)):
        comparisons = []
        for each in cells:
            trained, run = shared[each.trained.part_id]
            linearized = finetune_stage([each.linearized])
            comparison = _comparison(each, trained, run, linearized)
            for stage in (trained, linearized, comparison):
                planning.add(stage, solve.variant)
            comparisons.append(Comparison(comparison, each.layer_set, each.first, len(each.cells.lambdas)))
        solves[number] = replace(solve, comparisons=tuple(comparisons))


def _comparison(each: TrainedCells, trained: Stage, run: int, linearized: Stage) -> Stage[CompareParameters]:
    inputs = {**each.trained.inputs, "trained": (trained.ref,), "linearized": (linearized.ref,)}
    return Stage(COMPARE, CompareParameters(each.cells, run), inputs)
