"""The order in which the stages of a plan are begun, so that its cells are completed one after the other."""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

from orchestrator.plan.plan import Plan
from orchestrator.stages.base.cells import Solve
from orchestrator.store.stage import Stage


def places(plan: Plan, missing: Sequence[Stage], workers: int = 1) -> dict[str, int]:
    """Return the place in line of each missing stage, by its identity.

    Stages that fill tables stand in the order of `_filling`, each behind those of its inputs that no earlier one needs,
    which stand as in the plan. A worker then finds the model of a seed loaded for as long as that seed has stages.

    Args:
        plan: the plan.
        missing: the stages to compute, inputs before what needs them.
        workers: workers that compute them.
    """
    position = {stage.stage_id: number for number, stage in enumerate(missing)}
    by_id = {stage.stage_id: stage for stage in missing}
    found: dict[str, int] = {}
    for stage in (*_filling(plan, set(by_id), workers), *missing):  # what was lost, and fills nothing, comes last
        needed, reached = {stage.stage_id} & by_id.keys() - found.keys(), [stage.stage_id]
        while reached:
            below = by_id.get(reached.pop())
            new = {stage_id for _, stage_id in below.needs()} & by_id.keys() - found.keys() - needed if below else set()
            needed |= new
            reached.extend(new)
        for stage_id in sorted(needed, key=position.__getitem__):
            found[stage_id] = len(found)
    return found


def _filling(plan: Plan, missing: set[str], workers: int) -> Iterator[Stage[Any]]:
    """Yield the stages that fill tables: seed by seed, the cheap ones of a seed first.

    Kernels of few examples come before those of many, all kernels before trainings, and what belongs to no cell last.
    Stages that keep to one worker, because they share what it holds, are long chains: one that is begun last would have
    all other workers wait for it. So those of as many seeds as there are workers come before what they are needed for.
    """
    by_seed: dict[tuple[int, int], list[Solve]] = {}
    for solve in plan.solves:
        by_seed.setdefault((solve.variant, solve.seed), []).append(solve)
    chains = [_chain(plan, solves, missing) for solves in by_seed.values()] if workers > 1 else []
    for number, of_seed in enumerate(by_seed.values()):
        for chain in chains[: workers + 1] if number == 0 else chains[number + workers : number + workers + 1]:
            yield from chain
        solves = sorted(of_seed, key=attrgetter("n_train"))
        yield from (solve.stage for solve in solves)
        yield from (comparison.stage for solve in solves for comparison in solve.comparisons)
    yield from plan.filling


def _chain(plan: Plan, solves: Sequence[Solve], missing: set[str]) -> list[Stage[Any]]:
    """Return the missing stages that keep to one worker and that the kernels of a seed need."""
    needed = {stage_id for solve in solves for _, stage_id in solve.stage.needs()} & missing
    return [stage for stage in plan.stages if stage.together is not None and stage.stage_id in needed]
