"""Rows of a tiny model, for the process that has the device and the one that has not."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from finetune.data.targets import kernel_outputs
from finetune.data.tokens import tokenize
from finetune.model.adapted import ScorerSettings
from finetune.model.device import check_device
from finetune.model.loading import LoadedModel, empty_model
from finetune.model.scorer import unsharded_scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelDType, ModelSettings
from ntk_dist.arrays import FloatArray
from tests.architectures.tiny_configs import tiny_config
from tests.architectures.trying import every_linear, known_words, load_larger, texts_with
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


def rows_of_architecture(folder: Path, model_type: str, device: str) -> dict[str, FloatArray]:
    """Return the scores and the rows of all linear modules of a tiny model of any architecture, label words scored."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        tiny_config(model_type).save_pretrained(folder)
    model = ModelSettings(str(folder), dtype="float64", weights="random", device=device)  # type: ignore[arg-type]
    network = empty_model(model, n_outputs=2, language_model=True)
    with known_words():
        adapter = AdapterSettings("none", 1, 1.0, every_linear(network, []))
        head = HeadSettings("label_words", False, words=("a", "b"))
        settings = ScorerSettings(model, adapter, head, n_outputs=2, adapter_seed=0, head_seed=0)
        scorer = unsharded_scorer(settings, settings.loaded_by(_loaded_here))
    texts = texts_with(None if scorer.words is None else scorer.words.mask)
    scores, rows = scorer.rows(texts.batch(range(len(texts))), torch.nn.Identity())
    return {name: values.numpy() for name, values in {**rows, "scores": scores}.items()}


def _loaded_here(settings: ModelSettings, **options: Any) -> LoadedModel:
    """Load a model on the host and take it to its device, for each draws its own random weights."""
    loaded = load_larger(replace(settings, device="cpu"), **options)
    loaded.model.to(check_device(settings))
    return loaded
