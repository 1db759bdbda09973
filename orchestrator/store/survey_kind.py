"""The kind `survey`: facts about model and data that planning needs; the command computes it, not a worker."""

from orchestrator.store.stage import StageKind

SURVEY = StageKind(
    name="survey",
    version=2,
    meaning="looks at the model and the data",
    module="orchestrator.sweep.survey",
)
