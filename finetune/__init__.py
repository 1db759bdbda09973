"""Models, adapters, heads and tasks of fine-tuning.

What a program may rely on is in `__all__`; each name loads its module, torch and transformers when it is
first used.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.analysis.difference import output_difference
    from finetune.analysis.probe import fit_head
    from finetune.data.metrics import classification_metrics, regression_metrics
    from finetune.data.sampling import Sample, sample
    from finetune.data.targets import code_targets, kernel_outputs, logit_targets
    from finetune.data.task import Examples, read_examples
    from finetune.data.tokens import TokenizedTexts, tokenize
    from finetune.errors import FinetuneError
    from finetune.model.adapted import ScorerSettings
    from finetune.model.inspection import ModelFacts, inspect_model
    from finetune.model.scorer import Scorer
    from finetune.scorers import build_scorer
    from finetune.settings import AdapterSettings, HeadSettings, ModelSettings, ShardingSettings, TaskSettings
    from finetune.training.linearized import LinearizedModel, LinearRows
    from finetune.training.loop import Targets, train
    from finetune.training.run import TrainingRun
    from finetune.training.settings import TrainingSettings

__all__ = [
    "AdapterSettings",
    "Examples",
    "FinetuneError",
    "HeadSettings",
    "LinearRows",
    "LinearizedModel",
    "ModelFacts",
    "ModelSettings",
    "Sample",
    "Scorer",
    "ScorerSettings",
    "ShardingSettings",
    "Targets",
    "TaskSettings",
    "TokenizedTexts",
    "TrainingRun",
    "TrainingSettings",
    "build_scorer",
    "classification_metrics",
    "code_targets",
    "fit_head",
    "inspect_model",
    "kernel_outputs",
    "logit_targets",
    "output_difference",
    "read_examples",
    "regression_metrics",
    "sample",
    "tokenize",
    "train",
]

_MODULES = {
    "output_difference": "finetune.analysis.difference",
    "fit_head": "finetune.analysis.probe",
    "classification_metrics": "finetune.data.metrics",
    "regression_metrics": "finetune.data.metrics",
    "Sample": "finetune.data.sampling",
    "sample": "finetune.data.sampling",
    "code_targets": "finetune.data.targets",
    "kernel_outputs": "finetune.data.targets",
    "logit_targets": "finetune.data.targets",
    "Examples": "finetune.data.task",
    "read_examples": "finetune.data.task",
    "TokenizedTexts": "finetune.data.tokens",
    "tokenize": "finetune.data.tokens",
    "FinetuneError": "finetune.errors",
    "ScorerSettings": "finetune.model.adapted",
    "ModelFacts": "finetune.model.inspection",
    "inspect_model": "finetune.model.inspection",
    "Scorer": "finetune.model.scorer",
    "build_scorer": "finetune.scorers",
    "AdapterSettings": "finetune.settings",
    "HeadSettings": "finetune.settings",
    "ModelSettings": "finetune.settings",
    "ShardingSettings": "finetune.settings",
    "TaskSettings": "finetune.settings",
    "LinearizedModel": "finetune.training.linearized",
    "LinearRows": "finetune.training.linearized",
    "Targets": "finetune.training.loop",
    "train": "finetune.training.loop",
    "TrainingRun": "finetune.training.run",
    "TrainingSettings": "finetune.training.settings",
}
"""The module of each public name."""

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that imports it decides what is shown


if not TYPE_CHECKING:  # or a type checker would believe that any name is here

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
