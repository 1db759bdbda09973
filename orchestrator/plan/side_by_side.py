"""Cells of several seeds or learning rates that are trained in one model, and the stages that such a stage replaces."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.spec.finetune_section import FinetuneSection
from orchestrator.stages.compare import COMPARE
from orchestrator.stages.side_by_side import SIDE_BY_SIDE
from orchestrator.store.stage import Stage

if TYPE_CHECKING:
    from orchestrator.plan.parts import Comparison, Solve
    from orchestrator.sweep.choices import Choice
    from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class Together:
    """A plan after seeds or learning rates were joined to be trained side by side.

    Attributes:
        solves: the solve stages, with comparisons that read the cells of their own.
        stages: all stages, each after its inputs.
        came_from: for each new stage one of those that it replaces, by their identities.
    """

    solves: list["Solve"]
    stages: dict[str, Stage]
    came_from: dict[str, str]


def train_together(
    section: FinetuneSection,
    variants: Sequence["Variant"],
    solves: Sequence["Solve"],
    stages: Mapping[str, Stage],
    *,
    memory: Callable[[Stage], int],
    budget: int,
) -> Together:
    """Plan the cells of several seeds or learning rates in one model, as many as `side_by_side` and memory allow.

    Args:
        section: which of them may stand side by side.
        variants: of the sweep.
        solves: its solve stages, with a comparison for each stage that trains some lambdas.
        stages: all stages planned so far, by identity.
        memory: bytes that a stage `finetune` takes.
        budget: bytes of a worker.
    """
    alike: dict[tuple[Any, ...], dict[str, Stage]] = {}
    for solve in solves:
        for comparison in solve.comparisons:
            key = _key(section.side_by_side_across or (), variants[solve.variant].choice, solve, comparison)
            trained = _trained(comparison, stages)
            alike.setdefault(key, {})[trained.stage_id] = trained
    joined: dict[str, tuple[Stage, int]] = {}
    for runs in alike.values():
        for members in _parts(list(runs.values()), section.side_by_side, memory, budget):
            if len(members) > 1:
                stage = _stage(members)
                joined |= {member.stage_id: (stage, number) for number, member in enumerate(members)}
    return _with(joined, solves, stages)


def _with(joined: Mapping[str, tuple[Stage, int]], solves: Sequence["Solve"], stages: Mapping[str, Stage]) -> Together:
    """Return the plan in which some training runs are members of other stages."""
    came_from = {stage.stage_id: run for run, (stage, _) in joined.items()}
    new = {stage.stage_id: stage for stage, _ in joined.values()}
    replaced = set(joined)
    changed = []
    for solve in solves:
        comparisons = []
        for each in solve.comparisons:
            run = _trained(each, stages).stage_id
            comparisons.append(_reading(each, *joined[run]) if run in joined else each)
            if run in joined:
                stage = comparisons[-1].stage
                new[stage.stage_id], came_from[stage.stage_id] = stage, each.stage.stage_id
                replaced.add(each.stage.stage_id)
        changed.append(replace(solve, comparisons=tuple(comparisons)))
    left = {stage_id: stage for stage_id, stage in stages.items() if stage_id not in replaced}
    return Together(changed, left | new, came_from)


def _trained(comparison: "Comparison", stages: Mapping[str, Stage]) -> Stage:
    ((_, stage_id),) = comparison.stage.inputs["trained"]
    return stages[stage_id]


def _key(across: Sequence[str], choice: "Choice", solve: "Solve", comparison: "Comparison") -> tuple[Any, ...]:
    """Return the key that cells must have in common to be trained side by side."""
    return (
        choice.task,
        choice.rank,
        None if "learning_rates" in across else choice.learning_rate,
        None if "seeds" in across else solve.seed,
        solve.n_train,
        solve.layer_sets[comparison.layer_set].groups,
        comparison.first,
    )


def _parts(members: Sequence[Stage], most: int, memory: Callable[[Stage], int], budget: int) -> Iterator[list[Stage]]:
    """Divide stages that can be trained together into parts with at most a number of cells, within a budget."""
    part: list[Stage] = []
    cells = taken = 0
    for member in members:
        own_cells, own_bytes = len(member.parameters["lambdas"]), memory(member)
        if part and (cells + own_cells > most or taken + own_bytes > budget):
            yield part
            part, cells, taken = [], 0, 0
        part.append(member)
        cells, taken = cells + own_cells, taken + own_bytes
    yield part


def _stage(members: Sequence[Stage]) -> Stage:
    return Stage(
        SIDE_BY_SIDE,
        {"members": [dict(member.parameters) for member in members]},
        {f"{role}.{number}": ids for number, member in enumerate(members) for role, ids in member.inputs.items()},
    )


def _reading(comparison: "Comparison", stage: Stage, number: int) -> "Comparison":
    """Return a comparison that reads its cells from the stages that train them side by side."""
    inputs = {**comparison.stage.inputs, "trained": ((stage.kind, stage.stage_id),)}
    return replace(comparison, stage=Stage(COMPARE, {**comparison.stage.parameters, "member": number}, inputs))
