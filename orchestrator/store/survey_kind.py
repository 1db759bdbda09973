"""The kind `survey`: what is known of model and data before a sweep is planned; the command finds it, and no worker."""

from orchestrator.store.stage import StageKind

SURVEY = StageKind(
    name="survey",
    version=2,
    meaning="looks at the model and the data",
    module="orchestrator.sweep.survey",
)
