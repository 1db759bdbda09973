"""The kind `survey`: facts about model and data that planning needs; the command computes it, not a worker."""

from dataclasses import dataclass

from orchestrator.store.stage import StageKind


@dataclass(frozen=True)
class SurveyParameters:
    """Parameters of a survey: a hash of what it depends on."""

    of: str


SURVEY = StageKind(
    name="survey",
    parameters=SurveyParameters,
    version=3,
    meaning="looks at the model and the data",
    module="orchestrator.sweep.survey",
)
