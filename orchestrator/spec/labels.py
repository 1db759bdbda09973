"""The key `task.labels`: classes by the names of their labels."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from finetune.data.label_names import name_of
from orchestrator.spec.quantities import Number

MOST_LABELS = 1_000
"""Most labels; a mapping of YAML may have as many keys."""

_Class = Annotated[int, Number, Field(ge=0, lt=MOST_LABELS)]


def _by_name(labels: Any) -> Any:
    """Return labels by their names; those of a list are classes 0, 1, 2, ..."""
    if isinstance(labels, list | tuple):
        labels = list(labels)
        if any(isinstance(label, list | dict | tuple) for label in labels):
            raise ValueError("a list of labels has a name for each class; write {name: class, ...} for anything else")
        if len(set(map(name_of, labels))) < len(labels):
            raise ValueError("the list names a label twice; each of its names is a class of its own")
        return {name_of(label): number for number, label in enumerate(labels)}
    if not isinstance(labels, dict):
        return labels
    named: dict[str, Any] = {}
    for label, of in labels.items():
        name = name_of(label)
        if name in named:
            raise ValueError(f"labels name `{name}` twice, in two spellings of one label; remove one")
        named[name] = of
    return named


def _all_classes(labels: dict[str, int | None]) -> dict[str, int | None]:
    """Return labels in the order of their classes, so that the order in a file does not matter."""
    found = {of for of in labels.values() if of is not None}
    missing = [of for of in range(max(found, default=0)) if of not in found]
    if missing:
        raise ValueError(f"labels have no label of class {missing[0]}; classes count from 0 and leave none out")
    if len(found) < 2:
        raise ValueError("labels have one class; give labels of two classes")
    return dict(sorted(labels.items(), key=lambda each: (each[1] is None, each[1] or 0, each[0])))


LabelClasses = Annotated[
    dict[str, _Class | None],
    BeforeValidator(_by_name),
    AfterValidator(_all_classes),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object", "additionalProperties": {"type": ["integer", "null"], "minimum": 0}},
                {"type": "array", "items": {"type": ["string", "number", "boolean"]}, "minItems": 2},
            ]
        }
    ),
]
"""The class of each label by its name, in the order of classes; None for labels whose rows are left out."""
