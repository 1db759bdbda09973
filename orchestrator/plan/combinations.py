"""The stages that combine weights trained on the tasks of a sweep, two tasks at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from orchestrator.errors import SpecError
from orchestrator.spec.finetune_section import CombinationsSection
from orchestrator.stages.combine import COMBINE, CombineParameters
from orchestrator.stages.combine.combinations import SIDES
from orchestrator.stages.compare import CompareParameters
from orchestrator.stages.finetune import runs_of
from orchestrator.store.stage import Stage

if TYPE_CHECKING:
    from orchestrator.plan.parts import Comparison, Solve
    from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class Combination:
    """A stage that fills the table `combinations`, for two tasks and some lambdas of a layer set.

    Attributes:
        stage: the stage `combine`.
        variants: positions of the variants of both tasks, which differ in the task alone.
        layer_set: name of the layer set.
        seed: seed of the grid.
        n_train: training examples.
    """

    stage: Stage[CombineParameters]
    variants: tuple[int, int]
    layer_set: str
    seed: int
    n_train: int


def plan_combinations(
    section: CombinationsSection, variants: Sequence["Variant"], solves: Sequence["Solve"], stages: Mapping[str, Stage]
) -> Iterator[Combination]:
    """Yield the combinations of every two tasks with the same rank and learning rate.

    Args:
        section: what to combine, and how.
        variants: of the sweep.
        solves: its solve stages, with their comparisons.
        stages: all stages planned so far, by identity.

    Raises:
        SpecError: two tasks have different numbers of outputs.
    """
    trained: dict[int, dict[tuple[Any, ...], tuple[Solve, Comparison]]] = {}
    for solve in solves:
        for comparison in solve.comparisons:
            groups = solve.layer_sets[comparison.layer_set].groups
            cells = (solve.seed, solve.n_train, groups, comparison.first)
            trained.setdefault(solve.variant, {})[cells] = (solve, comparison)
    for pair in combinations(range(len(variants)), 2):
        first, second = (variants[position] for position in pair)
        if (first.choice.rank, first.choice.learning_rate) != (second.choice.rank, second.choice.learning_rate):
            continue
        _check_outputs(first, second)
        for cells, (solve, comparison) in trained[pair[0]].items():
            _, other = trained[pair[1]][cells]
            stage = _stage(section, comparison.stage, other.stage, stages)
            name = solve.layer_sets[comparison.layer_set].name
            yield Combination(stage, pair, name, solve.seed, solve.n_train)


def _check_outputs(first: "Variant", second: "Variant") -> None:
    if first.survey.n_outputs != second.survey.n_outputs:
        raise SpecError(
            f"finetune.combinations needs tasks with equally many outputs: {first.choice.task} has "
            f"{first.survey.n_outputs} and {second.choice.task} {second.survey.n_outputs}; leave one out, or set "
            "finetune.combinations: null"
        )


def _stage(
    section: CombinationsSection, a: Stage[CompareParameters], b: Stage[CompareParameters], stages: Mapping[str, Stage]
) -> Stage[CombineParameters]:
    """Return the stage that combines the trained cells behind two stages `compare`, with inputs taken from these."""
    ((_, trained),) = a.inputs["trained"]
    parameters = CombineParameters(
        a=a.parameters,
        b=b.parameters,
        operations=tuple(section.operations),
        coefficients=tuple(section.coefficients),
        frozen_layers=runs_of(stages[trained])[0].parameters.frozen_layers,
    )
    both = zip(SIDES, (a, b), strict=True)
    roles = {f"{role}.{side}": ids for side, stage in both for role, ids in stage.inputs.items()}
    return Stage(COMBINE, parameters, roles)
