"""All kinds of stages; a new kind is added here."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from orchestrator.stages.additions import ADDITIONS
from orchestrator.stages.batches import BATCHES
from orchestrator.stages.batching import BATCHING
from orchestrator.stages.capture import CAPTURE
from orchestrator.stages.combine import COMBINE
from orchestrator.stages.compare import COMPARE
from orchestrator.stages.dataset import DATASET
from orchestrator.stages.finetune import FINETUNE
from orchestrator.stages.gram import GRAM
from orchestrator.stages.head import HEAD
from orchestrator.stages.head_refits import HEAD_REFITS
from orchestrator.stages.precision import PRECISION
from orchestrator.stages.smoothness import SMOOTHNESS
from orchestrator.stages.solve import SOLVE
from orchestrator.store.stage import Stage, StageKind, Together

KINDS: dict[str, StageKind] = {
    kind.name: kind
    for kind in (
        DATASET,
        BATCHES,
        HEAD,
        HEAD_REFITS,
        BATCHING,
        PRECISION,
        CAPTURE,
        GRAM,
        SOLVE,
        ADDITIONS,
        FINETUNE,
        COMPARE,
        COMBINE,
        SMOOTHNESS,
    )
}
"""Kinds of stages that workers compute by name, in the order in which a sweep needs them."""


def stage_from_json(data: Mapping[str, Any]) -> Stage:
    """Return the stage that `Stage.to_json` wrote."""
    inputs = {role: tuple((kind, stage_id) for kind, stage_id in ids) for role, ids in data["inputs"].items()}
    kind = KINDS[data["kind"]]
    within = tuple(stage_from_json(each) for each in data["within"])
    together = Together(**data["together"]) if data["together"] else None
    return Stage(kind, _reader(kind).validate_python(data["parameters"]), inputs, within, together)


@cache
def _reader(kind: StageKind) -> TypeAdapter[Any]:
    """Return the reader of a kind's parameters from JSON."""
    return TypeAdapter(kind.parameters)
