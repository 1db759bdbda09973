"""The order in which the stages of a plan are begun, so that its cells are completed one after the other."""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

from orchestrator.plan.plan import Plan
from orchestrator.stages.base.cells import Solve
from orchestrator.store.stage import Stage


def places(plan: Plan, missing: Sequence[Stage]) -> dict[str, int]:
    """Return the place in line of each missing stage, by its identity.

    Stages that fill tables stand in the order of `_filling`, each behind those of its inputs that no earlier one needs,
    which stand as in the plan. A worker then finds the model of a seed loaded for as long as that seed has stages.

    Args:
        plan: the plan.
        missing: the stages to compute, inputs before what needs them.
    """
    position = {stage.stage_id: number for number, stage in enumerate(missing)}
    by_id = {stage.stage_id: stage for stage in missing}
    found: dict[str, int] = {}
    for stage in (*_filling(plan), *missing):  # what was lost, and fills nothing, comes last
        needed, reached = {stage.stage_id} & by_id.keys() - found.keys(), [stage.stage_id]
        while reached:
            below = by_id.get(reached.pop())
            new = {stage_id for _, stage_id in below.needs()} & by_id.keys() - found.keys() - needed if below else set()
            needed |= new
            reached.extend(new)
        for stage_id in sorted(needed, key=position.__getitem__):
            found[stage_id] = len(found)
    return found


def _filling(plan: Plan) -> Iterator[Stage[Any]]:
    """Yield the stages that fill tables: seed by seed, the cheap ones of a seed first.

    Kernels of few examples come before those of many, all kernels before trainings, and what belongs to no cell last.
    """
    by_seed: dict[tuple[int, int], list[Solve]] = {}
    for solve in plan.solves:
        by_seed.setdefault((solve.variant, solve.seed), []).append(solve)
    for of_seed in by_seed.values():
        solves = sorted(of_seed, key=attrgetter("n_train"))
        yield from (solve.stage for solve in solves)
        yield from (comparison.stage for solve in solves for comparison in solve.comparisons)
    yield from plan.filling
