"""Rows of a tiny model, for the process that has the device and the one that has not."""

from functools import partial
from pathlib import Path

import torch

from finetune.scorer import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelDType, ModelSettings
from finetune.targets import kernel_outputs
from finetune.tokens import tokenize
from ntk_dist.kernel_matrix import FloatArray
from tests.tiny_models import ALL_TARGETS, Kind

TEXTS = ("the film was great", "a dull plot", "it was very good and the acting was not bright", "good")


def rows_of(folder: Path, kind: Kind, dtype: ModelDType, device: str) -> dict[str, FloatArray]:
    """Return the Jacobian rows of a few texts, by group, and the probe's features."""
    torch.set_num_threads(1)
    model = ModelSettings(str(folder), dtype=dtype, device=device)  # type: ignore[arg-type]
    adapter = AdapterSettings("lora", 2, 4.0, ALL_TARGETS[kind], "random")
    scorer = build_scorer(model, adapter, HeadSettings("random"), n_outputs=2, adapter_seed=1, head_seed=2)
    batch = tokenize(model, TEXTS, template=None, max_length=32).batch(range(len(TEXTS)))
    _, rows = scorer.rows(batch, partial(kernel_outputs, outputs="full"))
    return {name: values.numpy() for name, values in {**rows, "features": scorer.features(batch)}.items()}
