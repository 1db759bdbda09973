"""The kind `finetune`: trains the cells of some lambdas of a layer set, of one seed or several, in one model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.store.stage import Part, Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


def finetune_stage(runs: Sequence[Part]) -> Stage:
    """Return the stage that does some training runs in one model: runs of the model, or one of its linearization.

    The cells of a run are those of some lambdas; runs differ in seeds or learning rates.
    """
    inputs = {f"{role}.{number}": ids for number, run in enumerate(runs) for role, ids in run.inputs.items()}
    return Stage(FINETUNE, {"runs": [dict(run.parameters) for run in runs]}, inputs)


def runs_of(stage: Stage) -> list[Part]:
    """Return the training runs of a stage."""
    return [Part(run, stage.inputs_of(str(number))) for number, run in enumerate(stage.parameters["runs"])]


def cost(stage: Stage, variant: "Variant") -> StageCost:
    """Return the cost of all its runs."""
    from orchestrator.stages.finetune.cost import run_cost

    each = [run_cost(run, variant) for run in runs_of(stage)]
    return StageCost(
        flops=sum(run.flops for run in each),
        disk_bytes=sum(run.disk_bytes for run in each),
        memory_bytes=sum(run.memory_bytes for run in each),
    )


def cells_label(groups: Sequence[str], lambdas: Sequence[float]) -> str:
    """Return the groups and the number of lambdas of some cells."""
    return f"{'+'.join(groups)}, {len(lambdas)} lambdas from {lambdas[0]:g}"


def _label(stage: Stage) -> str:
    first, count = stage.parameters["runs"][0], len(stage.parameters["runs"])
    seeds = f", {count} seeds or learning rates" if count > 1 else ""
    return f"finetune ({first['model']}) of {cells_label(first['groups'], first['lambdas'])}{seeds}"


FINETUNE = StageKind(
    name="finetune",
    version=5,
    meaning="trains the model, or its linearization, with some lambdas of a layer set",
    module="orchestrator.stages.finetune.compute",
    cost=cost,
    label=_label,
    runs_model=True,
    advice="raise the budget, ask for fewer examples or layers, or set finetune.prefix_cache: false or, unless the "
    "model is divided by `sharding`, finetune.linearization: products",
)
