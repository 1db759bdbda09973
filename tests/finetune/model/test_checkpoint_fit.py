"""Checkpoints that hold less or more than their configuration describes: told by their headers, and when loaded."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from finetune.errors import FinetuneError, HeadError
from finetune.model.checkpoint_fit import check_checkpoint
from finetune.model.head import check_pretrained_head
from finetune.model.loading import empty_model, load_model
from finetune.settings import ModelSettings
from ntk_dist.errors import NonFiniteError
from tests.tiny_models import KINDS, Kind, save_tiny


def changed(
    folder: Path,
    copy: Path,
    config: dict[str, Any] | None = None,
    weights: Callable[[dict[str, Tensor]], object] = lambda _: None,
) -> ModelSettings:
    """Copy a checkpoint with another configuration, and with weights that `weights` changes in place."""
    copy.mkdir()
    facts = json.loads((folder / "config.json").read_text()) | (config or {})
    (copy / "config.json").write_text(json.dumps(facts))
    tensors = load_file(folder / "model.safetensors")
    weights(tensors)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return ModelSettings(str(copy))


def said_twice(settings: ModelSettings, *, language_model: bool = False) -> str:
    """Return what is said of a checkpoint by its headers, and again, the same, when it is loaded."""
    messages = []
    for look in (
        lambda: check_checkpoint(settings, empty_model(settings, n_outputs=2, language_model=language_model)),
        lambda: load_model(settings, n_outputs=2, language_model=language_model, seed=0),
    ):
        with pytest.raises(FinetuneError) as caught:
            look()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    return messages[0]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


LAYERS: dict[Kind, tuple[str, str]] = {
    "bert": ("num_hidden_layers", "bert.encoder.layer."),
    "roberta": ("num_hidden_layers", "roberta.encoder.layer."),
    "gpt2": ("n_layer", "transformer.h."),
    "llama": ("num_hidden_layers", "model.layers."),
    "gemma2": ("num_hidden_layers", "model.layers."),
    "t5": ("num_layers", "transformer.encoder.block."),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_that_the_weights_lack_and_layers_that_they_have_too_many(
    folders: dict[Kind, Path], tmp_path: Path, kind: Kind
):
    key, prefix = LAYERS[kind]
    # Gemma and Mistral list the kind of each layer
    lists = {"layer_types": None} if kind == "gemma2" else {}
    more = said_twice(changed(folders[kind], tmp_path / "more", {key: 4} | lists))
    assert f"the weights lack {prefix}2." in more
    assert "which config.json describes" in more
    fewer = said_twice(changed(folders[kind], tmp_path / "fewer", {key: 1} | lists))
    assert "the weights hold " in fewer
    assert f"{prefix.partition('.')[2]}1." in fewer


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("bert", "encoder.layer.1.attention.self.value.weight"),
        ("bert", "embeddings.LayerNorm.bias"),
        ("gpt2", "transformer.h.0.mlp.c_fc.weight"),
        ("qwen3", "model.layers.1.self_attn.q_norm.weight"),
    ],
)
def test_a_tensor_that_is_missing_is_named(folders: dict[Kind, Path], tmp_path: Path, kind: Kind, name: str):
    message = said_twice(changed(folders[kind], tmp_path / "m", weights=lambda tensors: tensors.pop(name)))
    assert f"{name}, which config.json describes" in message


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("llama", "model.layers.0.self_attn.q_proj.bias", "has no place"),
        ("bert", "encoder.layer.0.attention.self.extra.weight", "has no place"),
        ("llama", "model.layers.0.self_attn.q_proj.qweight", "they are quantized"),
    ],
)
def test_a_tensor_without_a_place_is_named(folders: dict[Kind, Path], tmp_path: Path, kind: Kind, name: str, said: str):
    message = said_twice(
        changed(folders[kind], tmp_path / "m", weights=lambda tensors: tensors.update({name: torch.zeros(16)}))
    )
    assert name in message
    assert said in message


def test_a_tensor_of_another_shape_is_named(folders: dict[Kind, Path], tmp_path: Path):
    message = said_twice(changed(folders["bert"], tmp_path / "m", {"intermediate_size": 48}))
    assert "bert.encoder.layer.0.intermediate.dense.weight is 32 x 16 and should be 48 x 16, " in message
    assert "bert.encoder.layer.0.intermediate.dense.bias is 32 and should be 48 and 4 more;" in message


def test_what_belongs_to_other_heads_older_releases_or_a_pooler_is_no_fault(folders: dict[Kind, Path], tmp_path: Path):
    def add(tensors: dict[str, Tensor]) -> None:
        for name in ("lm_head.weight", "cls.predictions.bias", "qa_outputs.weight", "roberta.pooler.dense.weight"):
            tensors[name] = torch.zeros(16, 16)
        tensors["embeddings.position_ids"] = torch.arange(66)[None]

    settings = changed(folders["roberta"], tmp_path / "m", weights=add)
    check_checkpoint(settings, empty_model(settings, n_outputs=2, language_model=False))
    load_model(settings, n_outputs=2, language_model=False, seed=0)

    def without_pooler(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if "pooler" in name]:
            del tensors[name]

    settings = changed(folders["bert"], tmp_path / "drawn", weights=without_pooler)
    check_checkpoint(settings, empty_model(settings, n_outputs=2, language_model=False))
    loaded = load_model(settings, n_outputs=2, language_model=False, seed=0)
    assert "bert.pooler.dense.weight" in loaded.missing


@pytest.mark.parametrize(
    ("kind", "saved"),
    [*((kind, "alone") for kind in KINDS), ("bert", "sharded"), ("gpt2", "pickled"), ("t5", "pickled")],
)
def test_a_whole_checkpoint_is_taken_however_it_was_saved(
    folders: dict[Kind, Path], tmp_path: Path, kind: Kind, saved: str
):
    config = AutoConfig.from_pretrained(folders[kind])
    classes = {"t5": AutoModel, "t5_gated": AutoModel, "bert": AutoModelForMaskedLM, "roberta": AutoModelForMaskedLM}
    model = (AutoModel if saved == "alone" else classes.get(kind, AutoModelForCausalLM)).from_config(config)
    if saved == "pickled":
        config.save_pretrained(tmp_path)
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    else:
        model.save_pretrained(tmp_path, **({"max_shard_size": "10KB"} if saved == "sharded" else {}))
    settings = ModelSettings(str(tmp_path))
    check_checkpoint(settings, empty_model(settings, n_outputs=2, language_model=False))


def test_weights_that_are_still_on_the_hub_are_no_fault_of_the_plan(folders: dict[Kind, Path], tmp_path: Path):
    model = empty_model(changed(folders["bert"], tmp_path / "m"), n_outputs=2, language_model=False)
    assert check_checkpoint(ModelSettings("someone/not-here"), model) == frozenset()


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.module."])
def test_weights_that_a_wrapper_saved_are_told_as_such(folders: dict[Kind, Path], tmp_path: Path, wrapper: str):
    def wrapped(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[wrapper + name] = tensors.pop(name)

    said = said_twice(changed(folders["bert"], tmp_path / "wrapped", weights=wrapped))
    assert f"the names of all weights begin with `{wrapper}`" in said


@pytest.mark.parametrize(
    ("kind", "saved_by", "lacks", "said"),
    [
        ("bert", "BertForSequenceClassification", "bert.pooler.dense.weight", "no bert.pooler.dense.weight, so that"),
        ("bert", "BertForTokenClassification", None, "one of BertForTokenClassification, whose head"),
        ("llama", "LlamaForTokenClassification", None, "one of LlamaForTokenClassification, whose head"),
        ("bert", "BertForSequenceClassification", "classifier.bias", "no classifier.bias, so that"),
    ],
)
def test_a_head_of_another_kind_is_not_kept(
    folders: dict[Kind, Path], tmp_path: Path, kind: Kind, saved_by: str, lacks: str | None, said: str
):
    """A head for tokens has the names and the shapes of one for texts, and is read behind a layer that is drawn."""
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folders[kind]))
    model.save_pretrained(tmp_path / "whole")
    settings = changed(
        tmp_path / "whole", tmp_path / "saved", {"architectures": [saved_by]}, lambda tensors: tensors.pop(lacks, None)
    )
    network = empty_model(settings, n_outputs=2, language_model=False)
    with pytest.raises(HeadError, match=re.escape(said)):
        check_pretrained_head(network, check_checkpoint(settings, network), n_outputs=2)
    check_pretrained_head(
        empty_model(ModelSettings(str(tmp_path / "whole")), n_outputs=2, language_model=False), (), n_outputs=2
    )


def test_what_overflows_in_half_precision_is_told_as_such(folders: dict[Kind, Path], tmp_path: Path):
    def large(tensors: dict[str, Tensor]) -> None:
        tensors["encoder.layer.0.attention.self.query.weight"][0, 0] = 1e6

    settings = changed(folders["bert"], tmp_path / "large", weights=large)
    load_model(settings, n_outputs=2, language_model=False, seed=0)
    with pytest.raises(NonFiniteError, match=r"numbers beyond 65504, the largest of float16.* bfloat16 or float32"):
        load_model(replace(settings, dtype="float16"), n_outputs=2, language_model=False, seed=0)


def test_outputs_have_names_whatever_the_configuration_asks_for(folders: dict[Kind, Path], tmp_path: Path):
    settings = changed(folders["bert"], tmp_path / "tuples", {"return_dict": False})
    model = load_model(settings, n_outputs=2, language_model=False, seed=0).model
    assert model(input_ids=torch.tensor([[2, 5, 3]])).logits.shape == (1, 2)
