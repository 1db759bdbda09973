"""Random weights are the same whole and sharded."""

from pathlib import Path

import torch

from finetune.model.loading import load_model
from finetune.settings import ModelSettings
from tests.finetune.zero.drawing import draw
from tests.forked_group import run_forked_group
from tests.tiny_models import Kind, save_tiny

# tied embeddings, biases, rules that draw weights of modules inside, buffers
DRAWN: tuple[Kind, ...] = ("bert", "gpt2", "gemma2", "t5_gated")


def test_a_model_drawn_in_parts_has_the_weights_of_the_whole_one(tmp_path: Path):
    models = []
    for kind in DRAWN:
        for file in save_tiny(kind, tmp_path / kind).glob("*.safetensors"):
            file.unlink()
        models.append(ModelSettings(str(tmp_path / kind), weights="random", weights_seed=3))
    models.append(ModelSettings(str(tmp_path / "gemma2"), dtype="bfloat16", weights="random"))
    processes = run_forked_group(2, draw, models)
    for number, settings in enumerate(models):
        model = load_model(settings, n_outputs=2, language_model=False, seed=0).model
        whole = dict(model.named_parameters()) | dict(model.named_buffers())
        for found in processes:
            assert found[number].keys() == whole.keys()
            assert all(torch.equal(found[number][name], value) for name, value in whole.items()), settings.path
            assert all(found[number][name].dtype == value.dtype for name, value in whole.items()), settings.path
