import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from transformers import BertConfig, BertForSequenceClassification

from finetune.errors import ModelLoadError, TargetError
from finetune.model.adapter import dense_parts
from finetune.model.architecture import Target, n_layers
from finetune.model.inspection import inspect_model
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from tests.tiny_models import ALL_TARGETS, DECODERS, FAMILIES, save_tiny


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    plain = {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in FAMILIES}
    masked = {f"masked {k}": save_tiny(k, tmp_path_factory.mktemp(k), masked=True) for k in ("bert", "roberta")}
    return plain | masked


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (kind, head)
        for kind in FAMILIES
        for head in ("random", "ridge", "out", "label_words")
        if head != "label_words" or not kind.startswith("t5")
    ],
)
@pytest.mark.parametrize("adapter", ["zero", "random", "dense"])
def test_the_facts_are_those_of_the_scorer(folders, kind, adapter, head):
    masked = head == "label_words" and kind in ("bert", "roberta")
    model = ModelSettings(str(folders[f"masked {kind}" if masked else kind]))
    adapters = AdapterSettings(
        "none" if adapter == "dense" else "lora", 3, 6.0, ALL_TARGETS[kind],
        "random" if adapter == "random" else "zero",
    )  # fmt: skip
    heads = {
        "random": HeadSettings("random"),
        "ridge": HeadSettings("ridge"),
        "out": HeadSettings("random", in_kernel=False),
        "label_words": HeadSettings("label_words", in_kernel=False, words=("bad", "great")),
    }
    facts = inspect_model(model, adapters, heads[head], n_outputs=2)
    weights = {"weight": [[0.5] * 16, [1.0] * 16], "bias": [0.0, 1.0]} if head == "ridge" else None
    scorer = build_scorer(model, adapters, heads[head], n_outputs=2, adapter_seed=0, head_seed=0, head_weights=weights)
    assert [group.name for group in facts.groups] == list(scorer.groups)
    for group in facts.groups:
        assert group.n_parameters == sum(linear.n_parameters for linear in scorer.groups[group.name]), group
        assert list(group.zero_parts) == scorer.zero_parts.get(group.name, []), group
    assert facts.is_decoder == (kind in DECODERS)
    assert (facts.n_layers, facts.hidden_size) == (2, 16)
    adapter_free = [p for n, p in scorer.model.named_parameters() if "lora_" not in n and n != "score.bias"]
    assert facts.n_parameters == sum(p.numel() for p in adapter_free)
    assert facts.weight_bytes == 4 * facts.n_parameters
    assert facts.model_type == scorer.model.config.model_type


def test_groups_are_named_after_layer_and_target(folders):
    adapter = AdapterSettings("lora", 2, 4.0, ("value", "dense", "query"))
    facts = inspect_model(ModelSettings(str(folders["bert"])), adapter, HeadSettings("random"), n_outputs=2)
    first = ["0.value", "0.attention.output.dense", "0.intermediate.dense", "0.output.dense", "0.query"]
    assert [group.name for group in facts.groups] == [
        *first, *(name.replace("0.", "1.", 1) for name in first), "dense", "head",
    ]  # fmt: skip
    assert [(group.layer, group.target) for group in facts.groups[:2]] == [
        (0, "value"), (0, "attention.output.dense"),
    ]  # fmt: skip
    assert [group.layer for group in facts.groups[-2:]] == [None, None]


def test_a_target_may_be_a_whole_path(folders):
    adapter = AdapterSettings("lora", 2, 4.0, ("bert.encoder.layer.1.attention.self.query",))
    facts = inspect_model(ModelSettings(str(folders["bert"])), adapter, HeadSettings("random"), n_outputs=2)
    assert [group.layer for group in facts.groups] == [1, None]


def test_a_target_does_not_match_the_middle_of_a_name(folders):
    with pytest.raises(TargetError, match=r"'uery'.*'query'"):
        inspect_model(
            ModelSettings(str(folders["bert"])), AdapterSettings("lora", 2, 4.0, ("uery",)), HeadSettings("random"),
            n_outputs=2,
        )  # fmt: skip


def test_facts_are_json(folders):
    adapter = AdapterSettings("lora", 2, 4.0, ("query",))
    facts = inspect_model(ModelSettings(str(folders["bert"])), adapter, HeadSettings("random"), n_outputs=2)
    assert json.loads(json.dumps(dataclasses.asdict(facts)))["groups"][0]["name"] == "0.query"


def test_layers_without_linear_modules_count_where_they_lie_below_others():
    model = BertForSequenceClassification(BertConfig(vocab_size=23, hidden_size=16, num_attention_heads=2,
                                                     num_hidden_layers=4, intermediate_size=24))  # fmt: skip
    layers = model.bert.encoder.layer
    layers[0], layers[3] = torch.nn.Tanh(), torch.nn.Tanh()
    assert n_layers(model) == 3
    model.bert.encoder = torch.nn.Tanh()
    assert n_layers(model) == 0


def test_no_weight_is_read(tmp_path):
    folder = save_tiny("bert", tmp_path / "m")
    weights = folder / "model.safetensors"
    # loaded, they would be refused
    tensors = {name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(weights).items()}
    save_file(tensors, weights)
    adapter = AdapterSettings("lora", 2, 4.0, ("query",))
    assert inspect_model(ModelSettings(str(folder)), adapter, HeadSettings("random"), n_outputs=2).n_layers == 2


def test_no_model_there(tmp_path):
    with pytest.raises(ModelLoadError):
        inspect_model(
            ModelSettings(str(tmp_path / "none")), AdapterSettings("lora", 2, 4.0, ("query",)), HeadSettings("random"),
            n_outputs=2,
        )  # fmt: skip


@pytest.mark.parametrize("normalized", [weight_norm, spectral_norm])
def test_a_weight_that_is_computed_from_others_is_no_target(normalized):
    """Its own gradient is not that of the parameters, and two of them are not tied: each read makes another tensor."""
    target = Target("0.query", 0, "query", "layer.0.query", normalized(torch.nn.Linear(3, 3)))
    with pytest.raises(TargetError, match=r"the weight of layer\.0\.query is no parameter.* adapter\.kind: lora"):
        dense_parts(target)
