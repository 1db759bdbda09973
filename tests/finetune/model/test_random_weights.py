"""Random weights: what config.json describes, whatever stands beside it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import OpenAIGPTConfig

from finetune.data.tokens import tokenize
from finetune.errors import DeviceError, ModelLoadError
from finetune.model.device import check_device
from finetune.model.loading import load_model
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.device.transfers import NoDeviceError
from tests.tiny_models import KINDS, Kind, save_tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSettings]:
    """By kind, a folder with a configuration and a tokenizer."""
    found = {}
    for kind in KINDS:
        folder = save_tiny(kind, tmp_path_factory.mktemp(kind))
        for file in folder.glob("*.safetensors"):
            file.unlink()
        found[kind] = ModelSettings(str(folder), weights="random")
    return found


def weights(settings: ModelSettings, **options: Any) -> dict[str, Tensor]:
    asked = {"n_outputs": 2, "language_model": False, "seed": 0} | options
    return dict(load_model(settings, **asked).model.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_depends_on_the_seed_and_its_name_alone(models: dict[str, ModelSettings], kind: Kind):
    first = weights(models[kind])
    torch.rand(1)
    # another head and its seed change nothing below it
    again, other = weights(models[kind], n_outputs=5, seed=9), weights(replace(models[kind], weights_seed=1))
    body = [name for name, value in first.items() if value.shape == again[name].shape]
    assert len(body) >= len(first) - 2
    assert all(torch.equal(first[name], again[name]) for name in body)
    for name, value in first.items():
        constant = bool((value == value.flatten()[0]).all())
        assert constant == torch.equal(value, other[name]), name
        assert value.ndim == 1 or not constant, name


def test_what_the_rule_of_an_architecture_passes_over_is_drawn_too(tmp_path: Path):
    """That of the first GPT does not know its own linear modules."""
    OpenAIGPTConfig(vocab_size=23, n_embd=16, n_layer=1, n_head=2, n_positions=8).save_pretrained(tmp_path)
    settings = ModelSettings(str(tmp_path), weights="random")
    first, again = weights(settings), weights(settings)
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        if name.endswith("c_fc.weight"):
            assert float(value.std()) == pytest.approx(0.02, rel=0.2)
    name = "transformer.h.0.attn.c_attn.weight"
    assert not torch.equal(weights(replace(settings, weights_seed=1))[name], first[name])


@pytest.mark.parametrize("kind", KINDS)
def test_other_precisions_have_the_same_weights(models: dict[str, ModelSettings], kind: Kind):
    single = weights(models[kind])
    for dtype in ("float64", "bfloat16", "float16"):
        found = weights(replace(models[kind], dtype=dtype))
        assert all(torch.equal(found[name], value.to(getattr(torch, dtype))) for name, value in single.items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_drawn_model_is_the_one_that_is_saved_and_loaded(
    models: dict[str, ModelSettings], kind: Kind, tmp_path: Path
):
    """Buffers are not saved, and would be what memory held if they had been drawn wrongly."""
    settings = replace(models[kind], dtype="float64")
    adapter, head = AdapterSettings("none", 1, 1.0, ("q", "query", "q_proj", "c_attn")), HeadSettings("pretrained")
    loaded = load_model(settings, n_outputs=2, language_model=False, seed=0)
    assert not loaded.missing
    loaded.model.save_pretrained(tmp_path)
    target = {"bert": "query", "roberta": "query", "gpt2": "c_attn", "t5": "q", "t5_gated": "q"}.get(kind, "q_proj")
    adapter = replace(adapter, target_modules=(target,))
    options: dict[str, Any] = {"n_outputs": 2, "adapter_seed": 0, "head_seed": 0}
    batch = tokenize(settings, ["the film was great", "good"], template=None, max_length=32).batch([0, 1])
    drawn = build_scorer(settings, adapter, head, **options)
    saved = build_scorer(ModelSettings(str(tmp_path), dtype="float64"), adapter, head, **options)
    assert torch.equal(drawn.logits(batch), saved.logits(batch))


def test_deviations_are_those_of_the_architecture(models: dict[str, ModelSettings]):
    bert, t5 = weights(models["bert"]), weights(models["t5"])
    dense = torch.cat([value.flatten() for value in bert.values() if value.ndim == 2])
    assert abs(float(dense.std()) - 0.02) < 1e-3
    assert abs(float(t5["transformer.shared.weight"].std()) - 1) < 0.1
    assert float(t5["transformer.encoder.block.0.layer.1.DenseReluDense.wi.weight"].std()) < 0.4


def test_a_folder_without_configuration_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ModelLoadError, match="cannot be loaded"):
        weights(ModelSettings(str(tmp_path), weights="random"))


# --- devices


def test_a_missing_gpu_is_named(models: dict[str, ModelSettings], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoDeviceError, match=r"finds no GPU.*set compute.device: cpu"):
        weights(replace(models["bert"], device="cuda"))


def test_a_gpu_without_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    with pytest.raises(DeviceError, match=r"Tesla V100 does not compute in it: set model.dtype: float16"):
        check_device(ModelSettings("m", dtype="bfloat16", device="cuda"))
    assert check_device(ModelSettings("m", dtype="float16", device="cuda")) == torch.device("cuda")
