from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
)

from finetune.data.tokens import tokenize
from finetune.errors import HeadError, LabelWordError, ModelLoadError, TargetError, UnsupportedModelError
from finetune.model.adapted import AdaptedModel, ScorerSettings
from finetune.model.label_words import word_ids
from finetune.model.loading import LoadedModel, load_model
from finetune.model.scorer import Scorer, UnshardedScorer, unsharded_scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings, ShardingSettings
from ntk_dist.errors import NonFiniteError, TiedWeightsError
from ntk_dist.jacobian.capture import jacobian_rows
from tests.tiny_models import ALL_TARGETS, DECODERS, KINDS, save_tiny

TEXTS = ("the film was great", "a dull plot", "good")
LORA = AdapterSettings("lora", 2, 4.0, ("query", "value"))
LLAMA_LORA = AdapterSettings("lora", 2, 4.0, ("q_proj", "v_proj"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def build(folder, adapter=LORA, head=None, *, dtype="float64", n_outputs=2, seeds=(0, 0), **options) -> Scorer:
    return build_scorer(
        ModelSettings(str(folder), dtype=dtype),
        adapter,
        head or HeadSettings("random"),
        n_outputs=n_outputs,
        adapter_seed=seeds[0],
        head_seed=seeds[1],
        **options,
    )


def build_from(folder, load: Callable[..., LoadedModel]) -> Scorer:
    """Build a scorer of a model that is not loaded as usual."""
    adapter = AdapterSettings("none", 1, 1.0, ("query",))
    settings = ScorerSettings(ModelSettings(str(folder)), adapter, HeadSettings("random"), 2, 0, 0)
    return unsharded_scorer(settings, settings.loaded_by(load))


def batch_of(folder, texts=TEXTS):
    tokens = tokenize(ModelSettings(str(folder)), texts, template=None, max_length=32)
    return tokens.batch(range(len(tokens)))


def weights(scorer: Scorer) -> dict[str, torch.Tensor]:
    return dict(scorer.model.named_parameters())


def edit(folder, target, change):
    """Copy a checkpoint with changed weights."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


# --- draws


def test_draws_depend_on_their_own_seed_alone(folders):
    base = weights(build(folders["bert"]))
    other_head = weights(build(folders["bert"], seeds=(0, 1)))
    other_adapter = weights(build(folders["bert"], seeds=(1, 0)))
    for name, value in base.items():
        is_a, is_head = "lora_A" in name, name == "classifier.weight"
        assert torch.equal(value, other_head[name]) != is_head, name
        assert torch.equal(value, other_adapter[name]) != is_a, name


def test_a_module_has_the_same_a_whatever_else_is_adapted(folders):
    both = weights(build(folders["bert"]))
    alone = weights(build(folders["bert"], AdapterSettings("lora", 2, 4.0, ("value",))))
    name = "bert.encoder.layer.1.attention.self.value.lora_A.default.weight"
    assert torch.equal(both[name], alone[name])
    assert not torch.equal(both[name], both[name.replace("value", "query")])


def test_precision_does_not_change_what_is_drawn(folders):
    double, single = weights(build(folders["bert"])), weights(build(folders["bert"], dtype="float32"))
    for name in double:
        assert torch.equal(double[name].float(), single[name]), name


def test_building_leaves_the_global_generator_alone(folders):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build(folders["bert"])
    build(folders["llama"], LLAMA_LORA, HeadSettings("label_words", in_kernel=False, words=("bad", "great")))
    assert torch.equal(torch.rand(3), expected)


def test_the_random_head_has_the_configured_spread(folders):
    head = weights(build(folders["bert"], n_outputs=6))["classifier.weight"]
    assert 0.01 < head.std() < 0.03
    assert not weights(build(folders["bert"], n_outputs=6))["classifier.bias"].any()


def test_lora_starts_at_the_pretrained_model(folders):
    batch = batch_of(folders["bert"])
    plain = build(folders["bert"], AdapterSettings("none", 1, 1.0, ("query",)))
    adapted = build(folders["bert"])
    moved = build(folders["bert"], AdapterSettings("lora", 2, 4.0, ("query", "value"), "random"))
    assert torch.allclose(plain.logits(batch), adapted.logits(batch), rtol=1e-12)
    assert not torch.allclose(plain.logits(batch), moved.logits(batch), rtol=1e-3)


def test_what_the_checkpoint_lacks_is_drawn_and_recorded(folders, tmp_path):
    def drop_pooler(tensors):
        del tensors["pooler.dense.weight"]

    folder = edit(folders["bert"], tmp_path / "m", drop_pooler)
    first, again, other = (build(folder, seeds=seeds) for seeds in ((0, 0), (1, 0), (0, 1)))
    name = "bert.pooler.dense.weight"
    assert first.drawn == [name, "classifier.bias", "classifier.weight"]
    assert torch.equal(weights(first)[name], weights(again)[name])
    assert not torch.equal(weights(first)[name], weights(other)[name])
    assert 0.01 < weights(first)[name].std() < 0.03


# --- parts without a gradient


def test_what_is_zero_is_skipped_and_named(folders):
    scorer = build(folders["bert"])
    assert scorer.zero_parts == {f"{layer}.{name}": ["lora_A"] for layer in (0, 1) for name in ("query", "value")}
    assert [linear.name.rpartition(".")[2] for linear in scorer.groups["0.query"]] == ["lora_B"]
    moved = build(folders["bert"], AdapterSettings("lora", 2, 4.0, ("query",), "random"))
    assert moved.zero_parts == {}
    assert [linear.name.rpartition(".")[2] for linear in moved.groups["0.query"]] == ["lora_A", "lora_B"]


def test_below_a_head_of_zeros_nothing_has_a_gradient(folders):
    zeros = {"weight": np.zeros((2, 16)), "bias": np.array([1.0, 2.0])}
    scorer = build(folders["roberta"], head=HeadSettings("ridge"), head_weights=zeros)
    assert scorer.zero_parts["1.value"] == ["lora_A", "lora_B"]
    assert scorer.zero_parts["head"] == ["classifier.dense"]
    batch = batch_of(folders["roberta"])
    scores, rows = jacobian_rows(lambda: scorer.logits(batch), scorer.groups)
    assert torch.equal(scores, torch.tensor([[1.0, 2.0]] * 3, dtype=torch.float64))
    assert rows["0.query"].shape == (3, 2, 0)
    assert rows["head"].shape == (3, 2, 2 * 16 + 2)


def test_only_the_wanted_groups_are_tracked(folders):
    assert list(build(folders["bert"], groups=["head", "1.query"]).groups) == ["1.query", "head"]
    assert build(folders["bert"], groups=[]).groups == {}
    with pytest.raises(TargetError, match=r"no group '2\.query'.*0\.query, 0\.value"):
        build(folders["bert"], groups=["2.query"])


# --- heads


def test_a_pretrained_head_is_kept(tmp_path):
    folder = save_tiny("bert", tmp_path / "m", n_labels=3)
    scorer = build(folder, head=HeadSettings("pretrained"), n_outputs=3)
    saved = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    batch = batch_of(folder)
    expected = saved(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
    assert torch.allclose(scorer.logits(batch), expected, rtol=1e-12)
    assert scorer.drawn == []
    with pytest.raises(HeadError, match="no classifier with 2 outputs"):
        build(folder, head=HeadSettings("pretrained"), n_outputs=2)
    assert build(folder, n_outputs=2).drawn == ["classifier.bias", "classifier.weight"]


def test_a_missing_pretrained_head_is_an_error(folders):
    with pytest.raises(HeadError, match="no score with 2 outputs"):
        build(folders["llama"], LLAMA_LORA, HeadSettings("pretrained"))


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "qwen3", "gemma2", "t5"])
def test_probe_weights_act_on_the_features(folders, kind):
    rng = np.random.default_rng(0)
    fitted = {"weight": rng.normal(size=(3, 16)), "bias": rng.normal(size=3)}
    adapter = AdapterSettings("lora", 2, 4.0, ALL_TARGETS[kind][:1])
    scorer = build(folders[kind], adapter, HeadSettings("ridge"), n_outputs=3, head_weights=fitted)
    batch = batch_of(folders[kind])
    unfitted = build(folders[kind], adapter, HeadSettings("ridge"), n_outputs=3, groups=[])
    features = unfitted.features(batch).numpy()
    assert features.shape == (3, 16)
    np.testing.assert_allclose(scorer.logits(batch).numpy(), features @ fitted["weight"].T + fitted["bias"], rtol=1e-10)
    assert "score.weight" not in scorer.drawn
    _, rows = jacobian_rows(lambda: scorer.logits(batch), scorer.groups)
    # the derivative with respect to the head's own bias is the identity
    assert torch.equal(rows["head"][0, :, -3:], torch.eye(3, dtype=torch.float64))


def test_probe_weights_must_fit(folders):
    wrong = {"weight": np.zeros((2, 5)), "bias": np.zeros(2)}
    with pytest.raises(HeadError, match=r"takes weights \(2, 16\)"):
        build(folders["bert"], head=HeadSettings("ridge"), head_weights=wrong)
    with pytest.raises(HeadError, match="random head takes no probe weights"):
        build(folders["bert"], head_weights=wrong)


def test_a_head_out_of_the_kernel_is_no_group(folders):
    assert "head" not in build(folders["bert"], head=HeadSettings("random", in_kernel=False)).groups


# --- label words


@pytest.mark.parametrize("kind", DECODERS)
def test_label_words_are_logits_of_the_language_model_at_the_last_token(folders, kind):
    words = HeadSettings("label_words", in_kernel=False, words=("bad", "great"))
    scorer = build(folders[kind], AdapterSettings("lora", 2, 4.0, ALL_TARGETS[kind][:2], "zero"), words)
    whole = AutoModelForCausalLM.from_pretrained(folders[kind], dtype=torch.float64).eval()
    tokens = tokenize(ModelSettings(str(folders[kind])), TEXTS, template="{text} it was", max_length=32)
    logits = scorer.logits(tokens.batch([0, 1, 2]))
    ids = [tokens.ids.tolist()[a:b] for a, b in zip(tokens.offsets, tokens.offsets[1:], strict=False)]
    vocabulary = word_ids(ModelSettings(str(folders[kind])), words.words, 2).words
    for i, sequence in enumerate(ids):
        expected = whole(torch.tensor([sequence])).logits[0, -1, vocabulary]
        # the plain model rounds to single precision inside its norms
        assert torch.allclose(logits[i], expected, rtol=1e-5), i


def test_label_words_take_part_in_rows(folders):
    words = HeadSettings("label_words", in_kernel=False, words=("bad", "great"))
    scorer = build(folders["llama"], LLAMA_LORA, words)
    batch = batch_of(folders["llama"])
    _, rows = jacobian_rows(lambda: scorer.logits(batch), scorer.groups)
    assert all(values.any() for values in rows.values())
    assert "head" not in rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bad", "very great"), r"'very great' must be one known token.*\['very', 'great'\]"),
        (("bad", "zebra"), r"'zebra' must be one known token"),
        (("bad", "bad"), "'bad' is the same token"),
        (("bad",), "1 label words for 2 outputs"),
    ],
)
def test_label_words_must_be_single_tokens(folders, words, message):
    with pytest.raises(LabelWordError, match=message):
        build(folders["llama"], LLAMA_LORA, HeadSettings("label_words", in_kernel=False, words=words))


@pytest.mark.parametrize(
    "config",
    [
        CohereConfig(logit_scale=0.3),
        Gemma2Config(
            final_logit_softcapping=0.5,
            head_dim=8,
            query_pre_attn_scalar=8,
            layer_types=["full_attention"],
            num_hidden_layers=1,
        ),
        GraniteConfig(logits_scaling=7.0),
    ],
    ids=lambda config: config.model_type,
)
def test_what_a_language_model_does_behind_its_vocabulary_is_done_to_words(folders, tmp_path, config):
    config.update({
        "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
        "num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
    })  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for file in folders["llama"].glob("token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    words = HeadSettings("label_words", False, words=("bad", "great"))
    scorer = build(tmp_path, AdapterSettings("none", 1, 1.0, ("q_proj",)), words)
    # before: the model itself, whose vocabulary is not scored any more afterwards
    batch, whole = (
        batch_of(tmp_path),
        load_model(ModelSettings(str(tmp_path), dtype="float64"), n_outputs=2, language_model=True, seed=0).model,
    )
    ids = word_ids(ModelSettings(str(tmp_path)), words.words, 2).words
    own = UnshardedScorer(AdaptedModel(whole, scorer.final)).vocabulary_logits(batch)
    expected = own[torch.arange(len(batch)), batch.last_positions][:, ids]
    assert torch.allclose(scorer.logits(batch), expected, rtol=1e-12)
    features = scorer.features(batch)
    assert features.shape == (len(batch), 16)
    assert not torch.allclose(scorer.final(features), expected, rtol=1e-3)


# --- bad input


def test_a_target_that_matches_nothing_lists_what_exists(folders):
    with pytest.raises(TargetError, match=r"'quary' matches no linear.*'query'.*query \(2\), key \(2\).*dense \(7\)"):
        build(folders["bert"], AdapterSettings("lora", 2, 4.0, ("value", "quary")))


def test_the_head_is_no_target(folders):
    with pytest.raises(TargetError, match="'classifier'"):
        build(folders["bert"], AdapterSettings("lora", 2, 4.0, ("classifier",)))


def test_processes_that_keep_the_whole_model_each_have_the_class_of_scorers_that_needs_no_others(folders):
    every = ShardingSettings(group_size=2, stage=0)
    assert isinstance(build(folders["bert"], sharding=every), UnshardedScorer)
    assert not build(folders["bert"]).is_sharded


def test_a_nan_weight_is_named(folders, tmp_path):
    def spoil(tensors):
        tensors["encoder.layer.1.output.dense.weight"][2, 3] = torch.nan

    folder = edit(folders["bert"], tmp_path / "m", spoil)
    with pytest.raises(NonFiniteError, match=r"bert\.encoder\.layer\.1\.output\.dense\.weight"):
        build(folder)


def test_tied_weights_in_two_groups_are_refused(folders):
    def tie(*args, **kwargs):
        loaded = load_model(*args, **kwargs)
        layers = loaded.model.bert.encoder.layer
        layers[1].attention.self.query.weight = layers[0].attention.self.query.weight
        return loaded

    with pytest.raises(TiedWeightsError, match=r"1\.query.*0\.query"):
        build_from(folders["bert"], tie)


def test_a_weight_that_another_module_computes_with_too_is_refused(folders):
    def tie(*args, **kwargs):
        loaded = load_model(*args, **kwargs)
        layers = loaded.model.bert.encoder.layer
        layers[1].attention.self.key.weight = layers[0].attention.self.query.weight
        return loaded

    with pytest.raises(
        TiedWeightsError, match=r"0\.attention\.self\.query and .*1\.attention\.self\.key are tied.*both"
    ):
        build_from(folders["bert"], tie)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelLoadError, match=r"cannot be loaded.*config\.json"):
        build(tmp_path)


def test_weights_of_another_architecture(folders, tmp_path):
    def rename(tensors):
        for name in list(tensors):
            tensors[f"{name}_other"] = tensors.pop(name)

    folder = edit(folders["bert"], tmp_path / "m", rename)
    with pytest.raises(ModelLoadError, match="none of the parameters"):
        build(folder)


def test_weights_of_another_shape(folders, tmp_path):
    def cut(tensors):
        tensors["encoder.layer.0.output.dense.weight"] = torch.zeros(3, 3)

    folder = edit(folders["bert"], tmp_path / "m", cut)
    with pytest.raises(
        ModelLoadError, match=r"bert\.encoder\.layer\.0\.output\.dense\.weight is 3 x 3 and should be \d+ x \d+; the"
    ):
        build(folder)


def test_encoder_decoders_are_refused(tmp_path):
    from transformers import BartConfig

    BartConfig(d_model=8, encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        build(tmp_path)
