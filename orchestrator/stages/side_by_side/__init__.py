"""The kind `side_by_side`: trains the runs of several `finetune` stages, of other seeds or rates, in one model."""

from typing import TYPE_CHECKING

from orchestrator.stages.finetune import FINETUNE
from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


def runs_of(stage: Stage) -> list[Stage]:
    """Return the training runs of a stage, as stages `finetune`; a stage of that kind is its own only run."""
    if stage.of is FINETUNE:
        return [stage]
    return [
        Stage(FINETUNE, parameters, stage.inputs_of(str(number)))
        for number, parameters in enumerate(stage.parameters["members"])
    ]


def cost(stage: Stage, variant: "Variant") -> StageCost:
    """Return the cost of all its training runs."""
    each = [FINETUNE.cost(run, variant) for run in runs_of(stage)]
    return StageCost(
        flops=sum(run.flops for run in each),
        disk_bytes=sum(run.disk_bytes for run in each),
        memory_bytes=sum(run.memory_bytes for run in each),
    )


def _label(stage: Stage) -> str:
    first, count = stage.parameters["members"][0], len(stage.parameters["members"])
    cells = f"{len(first['lambdas'])} lambdas from {first['lambdas'][0]:g}"
    return f"side_by_side of {'+'.join(first['groups'])}, {count} times {cells}"


SIDE_BY_SIDE = StageKind(
    name="side_by_side",
    version=3,
    meaning="trains the cells of several seeds or learning rates in one model",
    module="orchestrator.stages.side_by_side.compute",
    cost=cost,
    label=_label,
    runs_model=True,
)
