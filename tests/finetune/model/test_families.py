"""Properties of single families: windows, caps, scaled embeddings, position biases, tied embeddings; and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    Ernie4_5_MoeConfig,
    HunYuanMoEV1Config,
    MambaConfig,
    MixtralConfig,
    PhimoeConfig,
    PreTrainedConfig,
    Qwen2MoeConfig,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
    XGLMConfig,
    XLNetConfig,
)

from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.errors import HeadError, TargetError
from finetune.model import adapted
from finetune.model.encoder import T5EncoderForSequenceClassification
from finetune.model.inspection import inspect_model
from finetune.model.label_words import WordIds
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.errors import NotRecordedError
from ntk_dist.jacobian.batches import pad
from ntk_dist.jacobian.capture import jacobian_rows
from tests.single_example import reference_rows, relative_error
from tests.tiny_models import ALL_TARGETS, DECODERS, KINDS, TIED, Kind, save_tiny

TEXTS = ("the film was great", "a dull plot", "it was very good and the acting was not bright", "good")
WORDS = HeadSettings("label_words", in_kernel=False, words=("bad", "great"))
T5 = ("t5", "t5_gated")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def build(folder: Path, kind: Kind, *, head: HeadSettings | None = None, attention: str = "sdpa") -> Scorer:
    return build_scorer(
        ModelSettings(str(folder), dtype="float64", attention=attention),  # type: ignore[arg-type]
        AdapterSettings("none", 1, 1.0, ALL_TARGETS[kind]),
        head or HeadSettings("random"),
        n_outputs=2, adapter_seed=0, head_seed=0,
    )  # fmt: skip


def tokens_of(folder: Path) -> TokenizedTexts:
    return tokenize(ModelSettings(str(folder)), TEXTS, template=None, max_length=32)


def features(scorer: Scorer, folder: Path) -> torch.Tensor:
    return scorer.features(tokens_of(folder).batch(range(len(TEXTS))))


# --- the model is the family's own


@pytest.mark.parametrize("kind", [*DECODERS, *T5])
def test_features_are_the_pretrained_models_hidden_states(folders: dict[str, Path], kind: Kind):
    """Of a decoder those of the last token, of T5's encoder the mean over all; alone and without padding."""
    auto = T5EncoderModel if kind in T5 else AutoModel
    model = auto.from_pretrained(folders[kind], dtype=torch.float64, attn_implementation="eager").eval()
    tokens, found = tokens_of(folders[kind]), features(build(folders[kind], kind), folders[kind])
    for i in range(len(TEXTS)):
        with torch.no_grad():
            states = model(input_ids=tokens.batch([i]).input_ids).last_hidden_state[0]
        expected = states.mean(dim=0) if kind in T5 else states[-1]
        # the plain model rounds to single precision inside its norms
        assert torch.allclose(found[i], expected, rtol=1e-5, atol=1e-5), i


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("qwen2", "sliding_window", 64),
        ("mistral", "sliding_window", 64),
        ("gemma2", "sliding_window", 64),
        ("gemma2", "attn_logit_softcapping", None),
        ("gemma3", "sliding_window", 64),
        ("t5", "relative_attention_max_distance", 5),
    ],
)
def test_what_the_configuration_says_of_attention_counts(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: Kind, name: str, value: Any
):
    """Neither the tests above nor a sweep would notice a window that is longer than every text."""
    own = features(build(folders[kind], kind), folders[kind])
    from finetune.model import loading as model

    original = model.load_config

    def changed(*args: Any) -> PreTrainedConfig:
        config = original(*args)
        setattr(config, name, value)
        return config

    monkeypatch.setattr(model, "load_config", changed)
    other = features(build(folders[kind], kind), folders[kind])
    assert not torch.allclose(own, other, rtol=1e-3)
    # a text of one token (and an end) has nothing to attend to
    assert torch.allclose(own[3], other[3], rtol=1e-9) or name == "relative_attention_max_distance"


def test_gemma_2_caps_its_scores_whatever_attention_is_asked_for(folders: dict[str, Path]):
    asked = [build(folders["gemma2"], "gemma2", attention=attention) for attention in ("sdpa", "eager")]
    assert all(scorer.model.config._attn_implementation == "eager" for scorer in asked)
    assert torch.equal(*(features(scorer, folders["gemma2"]) for scorer in asked))
    assert build(folders["llama"], "llama").model.config._attn_implementation == "sdpa"


# --- tied embeddings


@pytest.mark.parametrize(
    ("kind", "head"), [(kind, HeadSettings("random")) for kind in (*TIED, *T5)] + [(kind, WORDS) for kind in TIED]
)
def test_tied_embeddings_are_in_no_group(folders: dict[str, Path], kind: Kind, head: HeadSettings):
    scorer = build(folders[kind], kind, head=head)
    embedding = scorer.model.get_input_embeddings().weight
    output = scorer.model.get_output_embeddings()
    assert (output is not None) == (head is WORDS)
    assert output is None or output.weight is embedding
    tracked = [linear for group in scorer.trained.values() for linear in group]
    addresses = [parameter.data_ptr() for linear in tracked for parameter in linear.parameters]
    assert embedding.data_ptr() not in addresses
    assert len(set(addresses)) == len(addresses)
    # so nothing counts the embedding, in whatever place
    every = sum(parameter.numel() for parameter in scorer.model.parameters())
    assert sum(linear.n_parameters for linear in tracked) <= every - embedding.numel()


@pytest.mark.parametrize(
    ("kind", "target"),
    [("gemma2", "embed_tokens"), ("gemma2", "lm_head"), ("gpt2", "wte"), ("t5", "shared"), ("t5", "lm_head")],
)
def test_embeddings_are_no_targets(folders: dict[str, Path], kind: Kind, target: str):
    for head in (HeadSettings("random"), WORDS)[: 1 if kind == "t5" else 2]:
        with pytest.raises(TargetError, match=f"'{target}' matches no linear module"):
            build_scorer(
                ModelSettings(str(folders[kind])), AdapterSettings("none", 1, 1.0, (target,)), head,
                n_outputs=2, adapter_seed=0, head_seed=0,
            )  # fmt: skip


# --- T5's encoder


def test_the_encoder_is_the_same_from_the_whole_model_and_alone(folders: dict[str, Path], tmp_path: Path):
    T5EncoderModel.from_pretrained(folders["t5"]).save_pretrained(tmp_path)
    whole, alone = build(folders["t5"], "t5"), build(tmp_path, "t5")
    assert whole.drawn == alone.drawn == ["classifier.bias", "classifier.weight"]
    tokens = tokens_of(folders["t5"])
    batch = tokens.batch(range(len(TEXTS)))
    (scores, rows), (other_scores, other_rows) = (
        jacobian_rows(lambda s=scorer: s.logits(batch), scorer.groups) for scorer in (whole, alone)
    )
    assert torch.equal(scores, other_scores)
    assert all(torch.equal(rows[name], other_rows[name]) for name in rows)


def test_the_decoder_is_not_loaded(folders: dict[str, Path]):
    facts = inspect_model(
        ModelSettings(str(folders["t5"])), AdapterSettings("lora", 2, 4.0, ("q", "wi")), HeadSettings("random"),
        n_outputs=2,
    )  # fmt: skip
    assert [group.name for group in facts.groups] == ["0.q", "0.wi", "1.q", "1.wi", "head"]
    encoder = T5ForConditionalGeneration.from_pretrained(folders["t5"]).encoder
    assert facts.n_parameters == sum(p.numel() for p in encoder.parameters()) + 2 * 16 + 2


def test_a_head_that_was_saved_with_the_encoder_is_kept(folders: dict[str, Path], tmp_path: Path):
    saved: Any = T5EncoderForSequenceClassification.from_pretrained(folders["t5"], num_labels=2, dtype=torch.float64)
    saved.classifier.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    saved.save_pretrained(tmp_path)
    scorer, tokens = build(tmp_path, "t5", head=HeadSettings("pretrained")), tokens_of(folders["t5"])
    assert scorer.drawn == []
    batch = tokens.batch([0, 1])
    expected = saved.eval()(batch.input_ids, batch.attention_mask).logits
    # the plain model rounds to single precision inside its norms, whatever the size of a logit
    assert torch.linalg.norm(scorer.logits(batch) - expected) < 1e-6 * torch.linalg.norm(expected)


def test_the_head_of_the_decoder_is_none_of_the_encoders(folders: dict[str, Path], tmp_path: Path):
    T5ForSequenceClassification.from_pretrained(folders["t5"], num_labels=2).save_pretrained(tmp_path)
    assert torch.equal(
        features(build(tmp_path, "t5"), folders["t5"]), features(build(folders["t5"], "t5"), folders["t5"])
    )
    with pytest.raises(HeadError, match="no classifier with 2 outputs"):
        build(tmp_path, "t5", head=HeadSettings("pretrained"))


@pytest.mark.parametrize("kind", T5)
def test_an_encoder_has_no_label_words(folders: dict[str, Path], kind: Kind):
    with pytest.raises(HeadError, match="of t5 only the encoder is taken"):
        build(folders[kind], kind, head=WORDS)
    with pytest.raises(HeadError, match="use a random, ridge or logistic head"):
        inspect_model(ModelSettings(str(folders[kind])), AdapterSettings("lora", 2, 4.0, ("q",)), WORDS, n_outputs=2)


# --- mixtures of experts

SIZES: dict[str, Any] = {
    "vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 32,
}  # fmt: skip


EXPERTS: dict[str, PreTrainedConfig] = {
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4),
    "qwen2_moe": Qwen2MoeConfig(**SIZES, moe_intermediate_size=8, num_experts=4, num_experts_per_tok=2),
}
# in half precision a token next to the border between two experts may take the other one beside longer texts
LIMITS = {"float64": 1e-10, "float32": 2e-5, "bfloat16": 0.1}


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", EXPERTS)
def test_experts_leave_examples_apart(tmp_path: Path, name: str, dtype: Any):
    EXPERTS[name].save_pretrained(tmp_path)
    scorer, double = (
        build_scorer(
            ModelSettings(str(tmp_path), dtype=precision, weights="random"),
            AdapterSettings("none", 1, 1.0, ("q_proj", "o_proj")), HeadSettings("random"),
            n_outputs=2, adapter_seed=0, head_seed=0,
        )
        for precision in (dtype, "float64")
    )  # fmt: skip
    # the same weights, rounded
    double.model.load_state_dict(scorer.model.state_dict())
    texts = [np.arange(4, 7), np.arange(5, 16), np.arange(9, 14)]
    scores, rows = scorer.rows(pad(texts, pad_id=0), torch.nn.Identity())
    alone: Callable[[int], torch.Tensor] = lambda i: double.logits(pad([texts[i]], pad_id=0))  # noqa: E731
    expected = reference_rows(alone, len(texts), double.groups)
    assert relative_error(scores, torch.cat([alone(i).detach() for i in range(len(texts))])) < LIMITS[dtype]
    for group, values in expected.items():
        assert relative_error(rows[group], values) < LIMITS[dtype], group


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_router_that_is_more_than_a_product_is_no_target(tmp_path: Path, kind: Any):
    PhimoeConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2).save_pretrained(tmp_path)
    with pytest.raises(NotRecordedError, match=r"0\.mlp\.router is a PhimoeTopKRouter, which .*leave it out"):
        build_scorer(
            ModelSettings(str(tmp_path), weights="random"), AdapterSettings(kind, 1, 1.0, ("mlp.router",)),
            HeadSettings("random"), n_outputs=2, adapter_seed=0, head_seed=0,
        )  # fmt: skip


ERNIE = Ernie4_5_MoeConfig(
    **SIZES | {"moe_intermediate_size": 8, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1},
    moe_layer_start_index=1,
)
MAMBA = MambaConfig(vocab_size=23, hidden_size=16, num_hidden_layers=2, state_size=4)


@pytest.mark.parametrize(
    ("config", "targets"),
    [(ERNIE, ("gate_proj", "down_proj")), (MAMBA, ("in_proj", "out_proj"))],
    ids=["ernie", "mamba"],
)
def test_targets_are_adapted_whatever_peft_knows_of_their_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: PreTrainedConfig, targets: tuple[str, ...]
):
    """Ernie's dense layer and shared experts have the names that experts had in its checkpoints."""
    config.save_pretrained(tmp_path)
    monkeypatch.setattr(adapted, "word_ids", lambda *_: WordIds([5, 6], None))
    scorer = build_scorer(
        ModelSettings(str(tmp_path), dtype="float64", weights="random"),
        AdapterSettings("lora", 2, 4.0, targets, "random"), WORDS, n_outputs=2, adapter_seed=0, head_seed=0,
    )  # fmt: skip
    texts = [np.arange(5, 11), np.arange(7, 10)]
    _, rows = scorer.rows(pad(texts, pad_id=0), torch.nn.Identity())
    alone: Callable[[int], torch.Tensor] = lambda i: scorer.logits(pad([texts[i]], pad_id=0))  # noqa: E731
    expected = reference_rows(alone, 2, scorer.groups)
    assert {name.split(".")[0] for name in rows} == {"0", "1"}
    for group, values in expected.items():
        assert bool(values.any()), group
        assert relative_error(rows[group], values) < 1e-9, group


# --- double precision

XLNET = XLNetConfig(vocab_size=23, d_model=16, n_layer=1, n_head=2, d_inner=24)
XGLM = XGLMConfig(vocab_size=23, d_model=16, num_layers=1, attention_heads=2, ffn_dim=24, max_position_embeddings=32)
HUNYUAN = HunYuanMoEV1Config(**SIZES, head_dim=4, num_experts=2, moe_topk=1, pad_token_id=0)


@pytest.mark.parametrize("config", [XLNET, XGLM, HUNYUAN], ids=lambda config: config.model_type)
def test_what_architectures_make_in_single_precision_is_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: PreTrainedConfig
):
    """Positions, the smallest number of a precision, the weights of routers."""
    config.save_pretrained(tmp_path)
    monkeypatch.setattr(adapted, "word_ids", lambda *_: WordIds([5, 6], None))
    scorer = build_scorer(
        ModelSettings(str(tmp_path), dtype="float64", weights="random"),
        AdapterSettings("none", 1, 1.0, ("layer_1" if config is XLNET else "q_proj",)), WORDS,
        n_outputs=2, adapter_seed=0, head_seed=0,
    )  # fmt: skip
    assert {parameter.dtype for parameter in scorer.model.parameters()} == {torch.float64}
    _, rows = scorer.rows(pad([np.arange(5, 11)], pad_id=0), torch.nn.Identity())
    assert all(bool(values.any()) for values in rows.values())
    assert torch.get_default_dtype() == torch.float32
