"""Label words: the language model's own logits, at the mask of a masked one and at the end of a causal one."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForMaskedLM, BertConfig, BertLMHeadModel, FlaubertConfig, GPT2Config, XLMRobertaConfig

from finetune.analysis.weight_condition import weight_condition_numbers
from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.errors import HeadError, LabelWordError, PromptError, TooLongError, UnsupportedModelError
from finetune.model.architecture import reads_mask
from finetune.model.label_words import check_label_words
from finetune.model.prefix import PrefixCache
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from finetune.training.origins import Origin
from finetune.training.stacked import StackedModel
from ntk_dist.jacobian.batches import pad
from ntk_dist.jacobian.capture import jacobian_rows
from tests.single_example import reference_rows, relative_error
from tests.tiny_models import ALL_TARGETS, MASK, SPECIAL, WORDS, save_tiny

TEXTS = ("the film was great", "a dull plot", "good", "it was very good and the acting was not bright")
HEAD = HeadSettings("label_words", in_kernel=False, words=("terrible", "great"))
VOCABULARY = [len(SPECIAL) + WORDS.index(word) for word in HEAD.words]
PROMPT = "{text} it was {mask} and bright"
KINDS = ("bert", "roberta")
LIMIT = {"float64": 1e-10, "float32": 2e-5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    masked = {kind: save_tiny(kind, tmp_path_factory.mktemp(kind), masked=True) for kind in KINDS}
    return masked | {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in ("llama", "gpt2")}


def build(folder, kind, adapter="zero", *, dtype="float64", head=HEAD, targets=None) -> Scorer:
    return build_scorer(
        ModelSettings(str(folder), dtype=dtype),
        AdapterSettings(
            "none" if adapter == "dense" else "lora", 2, 4.0, targets or ALL_TARGETS[kind],
            "random" if adapter == "random" else "zero",
        ),
        head, n_outputs=2, adapter_seed=3, head_seed=5,
    )  # fmt: skip


def tokens_of(folder, texts=TEXTS, template=PROMPT, max_length=32) -> TokenizedTexts:
    return tokenize(ModelSettings(str(folder)), texts, template=template, max_length=max_length)


def words_of(tokens: TokenizedTexts, i: int) -> str:
    vocabulary = [*SPECIAL, *WORDS, MASK]
    return " ".join(vocabulary[j] for j in tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]])


def edited(folder, target, change):
    """Copy a checkpoint with changed weights and configuration."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    tensors, config = load_file(target / "model.safetensors"), json.loads((target / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    (target / "config.json").write_text(json.dumps(config))
    return target


# --- the same numbers


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_masked_language_model_at_the_mask(folders, kind):
    scorer, tokens = build(folders[kind], kind), tokens_of(folders[kind])
    whole = AutoModelForMaskedLM.from_pretrained(folders[kind], dtype=torch.float64).eval()
    logits = scorer.logits(tokens.batch(range(len(TEXTS))))
    for i, text in enumerate(TEXTS):
        assert words_of(tokens, i) == f"<cls> {text} it was {MASK} and bright <sep>"
        alone = tokens.batch([i])
        expected = whole(alone.input_ids, alone.attention_mask).logits[0, tokens.lengths[i] - 4, VOCABULARY]
        assert torch.allclose(logits[i], expected, rtol=1e-11), i
    assert scorer.drawn == []


@pytest.mark.parametrize("adapter", ["zero", "random", "dense"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_match_plain_autograd_on_one_example_at_a_time(folders, kind, adapter):
    tokens = tokens_of(folders[kind])
    double = build(folders[kind], kind, adapter)
    reference = reference_rows(lambda i: double.logits(tokens.batch([i])), len(tokens), double.groups)
    assert len(reference) == 2 * len(ALL_TARGETS[kind])
    for dtype, limit in LIMIT.items():
        scorer = build(folders[kind], kind, adapter, dtype=dtype)
        batch = tokens.batch(range(len(tokens)))
        _, rows = jacobian_rows(lambda scorer=scorer, batch=batch: scorer.logits(batch), scorer.groups)
        for name, expected in reference.items():
            assert expected.any(), name
            assert relative_error(rows[name], expected) < limit, (dtype, name)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_agree_with_finite_differences_of_the_own_logits(folders, kind):
    """Autograd through a wrong head would agree with itself."""
    scorer, tokens = build(folders[kind], kind, "dense", targets=("query",)), tokens_of(folders[kind])
    whole = AutoModelForMaskedLM.from_pretrained(folders[kind], dtype=torch.float64).eval()
    batch = tokens.batch(range(len(tokens)))
    _, rows = jacobian_rows(lambda: scorer.logits(batch), scorer.groups)
    weight = dict(whole.named_parameters())[f"{scorer.groups['0.query'][0].name}.weight"]
    direction = torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(0))
    step, sides = 1e-5, []
    with torch.no_grad():
        for sign in (1, -1):
            weight += sign * step * direction
            logits = whole(batch.input_ids, batch.attention_mask).logits
            sides.append(torch.stack([logits[i, tokens.lengths[i] - 4, VOCABULARY] for i in range(len(tokens))]))
            weight -= sign * step * direction
    slope = rows["0.query"][..., : weight.numel()] @ direction.flatten()
    assert relative_error((sides[0] - sides[1]) / (2 * step), slope) < 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_what_the_words_are_scored_by(folders, kind):
    scorer, tokens = build(folders[kind], kind), tokens_of(folders[kind])
    batch = tokens.batch(range(len(tokens)))
    features = scorer.features(batch)
    assert features.shape == (len(TEXTS), 16)
    assert torch.allclose(scorer.final(features), scorer.logits(batch), rtol=1e-12)


def test_the_conditions_of_weights_are_known_of_language_models_too(folders):
    adapter = AdapterSettings("lora", 2, 4.0, ("query",))
    found = weight_condition_numbers(ModelSettings(str(folders["bert"])), adapter, HEAD, n_outputs=2)
    assert list(found) == ["0.query", "1.query"]


# --- fine-tuning them


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_frozen_layers_give_the_same_logits_and_rows(folders, kind):
    scorer, tokens = build(folders[kind], kind, targets=("query",)), tokens_of(folders[kind])
    groups = {"1.query": scorer.groups["1.query"]}
    cache = PrefixCache(scorer, 1, ["1.query"])
    cache.fill(tokens, batch_tokens=24)
    positions = [2, 0, 3]
    batch = tokens.batch(positions)
    logits, rows = jacobian_rows(lambda: scorer.logits(batch), groups)
    with cache.reading(positions, batch):
        kept_logits, kept_rows = jacobian_rows(lambda: scorer.logits(batch), groups)
    assert relative_error(kept_logits, logits) < 1e-12
    assert relative_error(kept_rows["1.query"], rows["1.query"]) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_cells_are_models_with_their_weights(folders, kind):
    targets, tokens = ("query", "value"), tokens_of(folders[kind])
    scorer = build(folders[kind], kind, "random", targets=targets)
    model = StackedModel(scorer, list(scorer.groups), [Origin({"train": tokens})], "full", [0, 0])
    draw = torch.Generator().manual_seed(1)
    for displacement in model.displacements:
        for tensor in displacement.values():
            tensor.data.normal_(0, 0.3, generator=draw)
    stacked = model.outputs("train", [np.array([3, 0])], [1, 0]).detach()
    for place, cell in enumerate((1, 0)):
        other = build(folders[kind], kind, "random", targets=targets)
        for linear in [linear for linears in other.trained.values() for linear in linears]:
            linear.module.weight.data += model.displacements[cell][f"{linear.name}.weight"].detach()
        assert torch.allclose(stacked[place], other.logits(tokens.batch([3, 0])), rtol=1e-10)
    assert not torch.allclose(stacked[0], stacked[1], rtol=1e-3)


# --- masked or causal


def test_a_configuration_says_whether_masks_are_read():
    assert reads_mask(XLMRobertaConfig())
    # known to be masked alone, whatever its class is called
    assert reads_mask(FlaubertConfig(architectures=["FlaubertWithLMHeadModel"]))
    assert reads_mask(BertConfig(architectures=["BertModel"]))
    assert reads_mask(BertConfig(architectures=["BertForMaskedLM"]))
    assert not reads_mask(BertConfig(architectures=["BertLMHeadModel"]))
    assert not reads_mask(BertConfig(is_decoder=True))
    assert not reads_mask(GPT2Config())


def test_a_bert_that_was_made_a_decoder_is_read_at_the_last_token(folders, tmp_path):
    def make_decoder(_tensors, config):
        config |= {"is_decoder": True, "architectures": ["BertLMHeadModel"]}

    folder = edited(folders["bert"], tmp_path / "m", make_decoder)
    batch = tokens_of(folder, template="{text} it was").batch(range(len(TEXTS)))
    model = BertLMHeadModel.from_pretrained(folder, dtype=torch.float64).eval()
    own = model(batch.input_ids, batch.attention_mask).logits[torch.arange(len(TEXTS)), batch.last_positions]
    assert torch.allclose(build(folder, "bert").logits(batch), own[:, VOCABULARY], rtol=1e-5)


# --- prompts


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_is_cut_and_the_mask_stays(folders, kind):
    tokens = tokens_of(folders[kind], max_length=11)
    assert words_of(tokens, 3) == f"<cls> it was very good it was {MASK} and bright <sep>"
    assert words_of(tokens, 2) == f"<cls> good it was {MASK} and bright <sep>"


def test_a_prompt_without_room_for_text_is_an_error_and_never_loses_its_mask(folders):
    with pytest.raises(TooLongError, match="leaves no room for the text in 7 tokens"):
        tokens_of(folders["bert"], max_length=7)


def test_a_second_text_stands_in_the_prompt(folders):
    tokens = tokenize(
        ModelSettings(str(folders["bert"])), ["the film"], ["bad {mask}"], template="{text} {mask} {text_pair}",
        max_length=32,
    )  # fmt: skip
    # what looks like a place in a text is none
    assert words_of(tokens, 0) == f"<cls> the film {MASK} bad <unk> <sep>"


def test_a_text_that_holds_a_mask_is_named(folders):
    with pytest.raises(PromptError, match=rf"example 1 has 2 mask tokens .*; take {MASK} out of its text"):
        tokens_of(folders["bert"], ["good", f"bad {MASK}"])


def test_a_tokenizer_without_a_mask(folders):
    with pytest.raises(PromptError, match=r"has \{mask\}, but the tokenizer has no mask token"):
        tokens_of(folders["llama"])


@pytest.mark.parametrize(
    ("kind", "template", "message"),
    [
        ("bert", None, "is a masked language model, .*: put {mask} into the template"),
        ("roberta", "{text} it was", "is a masked language model, .*: put {mask} into the template"),
        ("llama", PROMPT, "is a causal language model, .*: take {mask} out of the template"),
    ],
)
def test_prompts_that_do_not_fit_the_model_are_known_without_weights(folders, kind, template, message):
    model = ModelSettings(str(folders[kind]))
    with pytest.raises(PromptError, match=message):
        check_label_words(model, HEAD, template, n_outputs=2)
    check_label_words(model, HeadSettings("random"), template, n_outputs=2)
    check_label_words(model, HEAD, "{text} it was" if kind == "llama" else PROMPT, n_outputs=2)


def test_a_tokenizer_that_puts_a_token_behind_the_text(folders, tmp_path):
    """A causal model would be read at that token, as if nothing were left to say."""
    folder = edited(folders["llama"], tmp_path / "m", lambda tensors, config: None)
    model, file = ModelSettings(str(folder)), folder / "tokenizer.json"
    check_label_words(model, HEAD, "{text} it was", n_outputs=2)
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.post_processor = TemplateProcessing(single="$A <sep>", special_tokens=[("<sep>", SPECIAL.index("<sep>"))])
    tokenizer.save(str(file))
    with pytest.raises(PromptError, match=r"ends each text with <sep>.*: set add_eos_token: false"):
        check_label_words(ModelSettings(str(folder)), HEAD, "{text} it was", n_outputs=2)


def test_words_are_checked_without_weights(folders):
    model = ModelSettings(str(folders["bert"]))
    with pytest.raises(LabelWordError, match="'zebra' must be one known token"):
        check_label_words(model, dataclasses.replace(HEAD, words=("bad", "zebra")), PROMPT, n_outputs=2)


def test_a_masked_model_whose_tokenizer_has_no_mask(tmp_path):
    folder = save_tiny("bert", tmp_path / "m")
    with pytest.raises(PromptError, match="has no mask token, at which label words could be read"):
        check_label_words(ModelSettings(str(folder)), HEAD, PROMPT, n_outputs=2)


def test_a_batch_whose_prompts_have_no_mask(folders):
    scorer = build(folders["bert"], "bert")
    tokens = tokens_of(folders["bert"], template="{text} it was")
    with pytest.raises(PromptError, match="sequence 0 of a batch holds 0 mask tokens instead of one"):
        scorer.logits(tokens.batch([0]))
    assert scorer.words is not None
    mask = scorer.words.mask
    with pytest.raises(PromptError, match="sequence 1 of a batch holds 2 mask tokens"):
        scorer.logits(pad([np.array([2, mask, 3]), np.array([mask, mask, 3])], pad_id=0))


# --- checkpoints


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama"])
def test_a_checkpoint_without_its_language_model_head(folders, tmp_path, kind):
    lost = {"bert": "cls.predictions.transform.dense.weight", "roberta": "lm_head.dense.weight",
            "llama": "lm_head.weight"}[kind]  # fmt: skip
    folder = edited(folders[kind], tmp_path / "m", lambda tensors, _: tensors.pop(lost))
    with pytest.raises(HeadError, match=f"has no {lost}: it was saved without its language-model head"):
        build(folder, kind)


def test_an_encoder_saved_alone_has_no_language_model_head(tmp_path):
    from transformers import BertModel

    folder = save_tiny("bert", tmp_path / "m", masked=True)
    BertModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(HeadError, match=r"has no cls\.predictions\..*saved without its language-model head"):
        build(folder, "bert")


def test_a_model_that_changes_its_logits_behind_the_vocabulary(folders, monkeypatch):
    from transformers import BertForMaskedLM

    original = BertForMaskedLM.forward

    def scaled(self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        # by the vocabulary, which is not there any more once the words are scored alone
        output.logits = output.logits - output.logits.mean(dim=-1, keepdim=True)
        return output

    monkeypatch.setattr(BertForMaskedLM, "forward", scaled)
    with pytest.raises(UnsupportedModelError, match="BertForMaskedLM changes its logits"):
        build(folders["bert"], "bert")
