"""Facts about the model and the data of a variant, from which a sweep is planned without reading either."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from finetune.data.left_out import LeftOut
from finetune.settings import Labels
from orchestrator.sweep.layer_sets import GroupFacts

MOST = 2**53
"""No number of a survey comes near; all below it are exact in float64, in which costs are counted."""

Positive = Annotated[int, Field(gt=0, lt=MOST)]
Count = Annotated[int, Field(ge=0, lt=MOST)]


@dataclass(frozen=True)
class Architecture:
    """What a plan needs to know of a model; the fields mean what they do in `finetune.model.inspection.ModelFacts`."""

    n_layers: Count
    hidden_size: Positive
    n_parameters: Positive
    linear_parameters: Count
    weight_bytes: Positive
    largest_layer_bytes: Positive
    linear_width: Count
    model_type: str
    is_decoder: bool


@dataclass(frozen=True)
class Survey:
    """Facts about the model and the data of a variant.

    Attributes:
        groups: every group of the model, in the model's order, the head included.
        n_outputs: outputs C of the model: classes, or 1 for regression.
        model: facts about the architecture.
        pool_train: examples that training examples can be drawn from.
        pool_eval: examples that evaluation examples can be drawn from; with no split of their own, the same ones.
        shared_pool: whether train and evaluation examples are drawn from one split.
        mean_tokens: mean tokens of an example, special tokens included, estimated on a part of the data.
        class_sizes: number of training examples of each class; empty for regression.
        evaluation_sizes: the same of evaluation examples.
        labels: the class of each label by its name; empty where labels are the classes themselves.
        repeats_train: training examples whose text an earlier one has.
        repeats_eval: evaluation examples of which that is true, where they have a split of their own.
        shared_texts: evaluation examples of such a split whose text is a training example's too.
        left_out: rows of the data that are no examples.
        room: most tokens of a text that the model takes; None where no limit is known.
    """

    groups: tuple[GroupFacts, ...]
    n_outputs: Positive
    model: Architecture
    pool_train: Count
    pool_eval: Count
    shared_pool: bool
    mean_tokens: Annotated[float, Field(gt=0, lt=MOST)]
    class_sizes: tuple[Count, ...] = ()
    evaluation_sizes: tuple[Count, ...] = ()
    labels: Labels = ()
    repeats_train: Count = 0
    repeats_eval: Count = 0
    shared_texts: Count = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    room: Positive | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the survey as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Survey":
        """Return the survey that `to_json` wrote.

        Raises:
            ValueError: a value is missing, is of another type, or contradicts others, as where somebody edited it.
        """
        found = _checked().validate_python(data)
        _check_groups(found)
        return found


def _check_groups(survey: Survey) -> None:
    """Raise ValueError if the groups of a survey cannot be those of its model."""
    if len({group.name for group in survey.groups}) < len(survey.groups):
        raise ValueError("two groups have one name")
    for group in survey.groups:
        named = group.target if group.layer is None else f"{group.layer}.{group.target}"
        if group.name != named or not 0 <= (group.layer or 0) < max(1, survey.model.n_layers):
            raise ValueError(f"the model has no group {group.name!r} in layer {group.layer}")
        if not 0 < group.n_parameters < MOST:
            raise ValueError(f"group {group.name!r} has {group.n_parameters} parameters")


@cache
def _checked() -> TypeAdapter[Survey]:
    return TypeAdapter(Survey)
