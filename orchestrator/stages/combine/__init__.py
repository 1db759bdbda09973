"""The kind `combine`: evaluation on two tasks of combinations of the weights trained on each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.settings import Operation
from orchestrator.stages.base.scope import Planning
from orchestrator.stages.combine.columns import COMBINATIONS
from orchestrator.stages.combine.combinations import SIDES, Combined, Side, combinations_of
from orchestrator.stages.compare import CompareParameters
from orchestrator.store.stage import Stage, StageCost, StageKind
from orchestrator.sweep.passes import forward

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant

_COLUMNS = 9
"""Numbers of a combination: the gap, and loss and three metrics of both models."""


@dataclass(frozen=True)
class CombineParameters:
    """Parameters of a stage `combine`.

    Attributes:
        a, b: the comparisons of cells trained on each of two tasks.
        operations: ways to combine their weights.
        coefficients: coefficients of each.
        frozen_layers: layers below the trained ones that are computed once; None for all of them.
    """

    a: CompareParameters
    b: CompareParameters
    operations: tuple[Operation, ...]
    coefficients: tuple[float, ...]
    frozen_layers: int | None

    def of(self, side: Side) -> CompareParameters:
        """Return the comparison of one of the two tasks."""
        return self.a if side == "a" else self.b


def cost(stage: Stage[CombineParameters], variant: "Variant") -> StageCost:
    """Return the cost of a forward pass over both tasks' evaluation examples for each set of weights, with caches."""
    p, sizes, layers = stage.parameters, variant.sizes, variant.n_layers
    cells, combinations = len(p.a.cells.lambdas), len(planned(stage))
    frozen = layers if p.frozen_layers is None else p.frozen_layers
    share = 1 - frozen / layers if layers else 1.0
    forwards = len(SIDES) * cells * (combinations + len(SIDES)) * sizes.n_eval
    known = dict(zip(sizes.groups, sizes.group_parameters, strict=True))
    weights = sum(known[group] for group in p.a.cells.groups) * sizes.row_bytes
    return forward(variant, forwards, share=share) + StageCost(
        read_bytes=len(SIDES) * cells * weights,
        written_bytes=8 * _COLUMNS * len(SIDES) * cells * combinations,
        memory_bytes=_memory(stage, variant),
    )


def plan(planning: Planning) -> None:
    """Add the combinations of every two tasks, where the spec asks for them."""
    from orchestrator.stages.combine.planning import plan_combinations

    finetune = planning.sweep.spec.finetune
    if finetune is not None and finetune.combinations is not None:
        plan_combinations(planning, finetune.combinations)


def planned(stage: Stage[CombineParameters]) -> list[Combined]:
    """Return the combinations of a stage, in the order of the artifact's arrays."""
    return combinations_of(stage.parameters.operations, stage.parameters.coefficients)


def _memory(stage: Stage[CombineParameters], variant: "Variant") -> int:
    """Return the bytes of cached states, displacements and outputs."""
    p, sizes, survey = stage.parameters, variant.sizes, variant.survey
    groups = dict(zip(sizes.groups, sizes.group_parameters, strict=True))
    # Of both models and tasks, and their combination.
    weights = 5 * sum(groups[group] for group in p.a.cells.groups) * sizes.row_bytes
    cached = survey.mean_tokens * survey.model.hidden_size * sizes.row_bytes if p.frozen_layers != 0 else 0
    outputs = 2 * (len(planned(stage)) + len(SIDES)) * sizes.n_eval * sizes.rows_per_example * 8
    return int(weights + sizes.n_eval * cached + outputs)


def _label(stage: Stage[CombineParameters]) -> str:
    shared = stage.parameters.a.cells
    return f"combine tasks for {'+'.join(shared.groups)}, {len(shared.lambdas)} lambdas"


COMBINE = StageKind(
    name="combine",
    parameters=CombineParameters,
    version=4,
    meaning="combines the weights that were trained on two tasks",
    module="orchestrator.stages.combine.compute",
    plan_sweep=plan,
    cost=cost,
    label=_label,
    runs_model=True,
    advice="raise the budget, lower task.n_eval, or set finetune.prefix_cache: false",
    tables=(COMBINATIONS,),
)
