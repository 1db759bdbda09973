"""The kind `compare`: distances between the trained model and its trained linearization."""

from orchestrator.stages.finetune import cells_label
from orchestrator.store.stage import Stage, StageKind


def _label(stage: Stage) -> str:
    return f"compare {cells_label(stage.parameters['groups'], stage.parameters['lambdas'])}"


COMPARE = StageKind(
    name="compare",
    version=5,
    meaning="compares the trained model with its trained linearization",
    module="orchestrator.stages.compare.compute",
    label=_label,
)
