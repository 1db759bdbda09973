"""The kind `finetune`: trains the cells of some lambdas of a layer set together, in the model or its linearization."""

from typing import TYPE_CHECKING

from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


def cost(stage: Stage, variant: "Variant") -> StageCost:
    """Return the cost of training the cells."""
    from orchestrator.stages.finetune.cost import run_cost

    return run_cost(stage, variant)


def cells_label(kind: str, stage: Stage) -> str:
    """Return the kind, the groups and the number of lambdas."""
    p = stage.parameters
    return f"{kind} of {'+'.join(p['groups'])}, {len(p['lambdas'])} lambdas from {p['lambdas'][0]:g}"


def _label(stage: Stage) -> str:
    return cells_label(f"finetune ({stage.parameters['model']})", stage)


FINETUNE = StageKind(
    name="finetune",
    version=4,
    meaning="trains the model, or its linearization, with some lambdas of a layer set",
    module="orchestrator.stages.finetune.compute",
    cost=cost,
    label=_label,
    runs_model=True,
    advice="raise the budget, ask for fewer examples or layers, or set finetune.prefix_cache: false or, unless the "
    "model is divided by `sharding`, finetune.linearization: products",
)
