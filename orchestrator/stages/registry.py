"""Which function computes which kind of stage; a new kind of work is added here."""

from importlib import import_module
from typing import cast

from orchestrator.loading import load_model_libraries, no_garbage
from orchestrator.stages.work import Compute

_MODULES = {
    "dataset": "orchestrator.stages.dataset",
    "batches": "orchestrator.stages.batches",
    "head": "orchestrator.stages.head",
    "head_refits": "orchestrator.stages.head_refits",
    "batching": "orchestrator.stages.batching",
    "precision": "orchestrator.stages.precision",
    "capture": "orchestrator.stages.capture",
    "gram": "orchestrator.stages.gram",
    "solve": "orchestrator.stages.solve",
    "additions": "orchestrator.stages.additions",
    "finetune": "orchestrator.stages.finetune",
    "side_by_side": "orchestrator.stages.side_by_side",
    "compare": "orchestrator.stages.compare",
    "combine": "orchestrator.stages.combine",
}

KINDS = tuple(_MODULES)
"""Kinds of stages that workers compute, in the order in which a sweep needs them."""

OF_THE_MODEL = frozenset({"batches", "head", "batching", "precision", "capture", "finetune", "side_by_side", "combine"})
"""Kinds of stages that run the model, in its precision, and which a model group computes together."""


def compute_of(kind: str) -> Compute:
    """Return the function that computes a kind of stage; its libraries are loaded only now."""
    if kind in OF_THE_MODEL:
        load_model_libraries()
    with no_garbage():
        return cast(Compute, import_module(_MODULES[kind]).compute)
