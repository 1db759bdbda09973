"""The stages that combine weights trained on the tasks of a sweep, two tasks at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.spec.finetune_section import CombinationsSection
from orchestrator.stages.base.cells import Comparison, Filled, Solve
from orchestrator.stages.base.scope import Planning
from orchestrator.stages.combine import COMBINE, CombineParameters
from orchestrator.stages.combine.combinations import SIDES
from orchestrator.stages.compare import CompareParameters
from orchestrator.stages.finetune import runs_of
from orchestrator.store.stage import Stage
from orchestrator.sweep.variant import Variant


@dataclass(frozen=True, kw_only=True)
class Combination(Filled):
    """A stage that fills the table `combinations`, for two tasks and some lambdas of a layer set.

    Attributes:
        stage: the stage `combine`.
        other_variant: position of the variant of the second task, which differs from the first in the task alone.
        layer_set: name of the layer set.
    """

    stage: Stage[CombineParameters]
    other_variant: int
    layer_set: str


def plan_combinations(planning: Planning, section: CombinationsSection) -> None:
    """Add the combinations of every two tasks with the same rank and learning rate.

    Raises:
        SpecError: two tasks have different numbers of outputs.
    """
    trained: dict[int, dict[tuple[Any, ...], tuple[Solve, Comparison]]] = {}
    for solve in planning.filled_by(Solve):
        for comparison in solve.comparisons:
            groups = solve.layer_sets[comparison.layer_set].groups
            cells = (solve.seed, solve.n_train, groups, comparison.stage.parameters.cells.lambdas)
            trained.setdefault(solve.variant, {})[cells] = (solve, comparison)
    for pair in combinations(range(len(planning.variants)), 2):
        first, second = (planning.variants[position] for position in pair)
        if (first.choice.rank, first.choice.learning_rate) != (second.choice.rank, second.choice.learning_rate):
            continue
        _check_outputs(first, second)
        for cells, (solve, comparison) in trained[pair[0]].items():
            _, other = trained[pair[1]][cells]
            planning.fill(Combination(
                stage=_stage(section, comparison.stage, other.stage, planning.stages),
                variant=pair[0],
                other_variant=pair[1],
                layer_set=solve.layer_sets[comparison.layer_set].name,
                seed=solve.seed,
                n_train=solve.n_train,
            ))  # fmt: skip


def _check_outputs(first: Variant, second: Variant) -> None:
    if first.survey.n_outputs != second.survey.n_outputs:
        raise SpecError(
            f"finetune.combinations needs tasks with equally many outputs: {first.choice.task} has "
            f"{first.survey.n_outputs} and {second.choice.task} {second.survey.n_outputs}; leave one out, or set "
            "finetune.combinations: null",
            key="finetune.combinations",
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
