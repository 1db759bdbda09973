import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from finetune.data.tokens import TokenizedTexts, load_tokenizer, tokenize
from finetune.errors import EmptyTextError, ModelLoadError, TooLongError
from finetune.settings import ModelSettings
from tests.tiny_models import SPECIAL, WORDS, save_tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    kinds = ("bert", "llama")
    return {kind: ModelSettings(str(save_tiny(kind, tmp_path_factory.mktemp(kind)))) for kind in kinds}


def words(tokens: TokenizedTexts, i: int) -> str:
    vocabulary = [*SPECIAL, *WORDS]
    return " ".join(vocabulary[j] for j in tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]])


def test_flat_arrays_hold_every_example(models):
    tokens = tokenize(models["bert"], ["the film", "bad"], template=None, max_length=10)
    assert [words(tokens, i) for i in range(2)] == ["<cls> the film <sep>", "<cls> bad <sep>"]
    assert tokens.lengths.tolist() == [4, 3]
    assert len(tokens) == 2
    assert (tokens.ids.dtype, tokens.offsets.dtype) == (np.int32, np.int64)
    batch = tokens.batch([1, 0])
    assert batch.input_ids.tolist()[0] == [2, len(SPECIAL) + WORDS.index("bad"), 3, 0]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_pairs_have_token_types(models):
    tokens = tokenize(models["bert"], ["the film"], ["was bad"], template=None, max_length=10)
    assert words(tokens, 0) == "<cls> the film <sep> was bad <sep>"
    assert tokens.token_types is not None
    assert tokens.token_types.tolist() == [0, 0, 0, 0, 1, 1, 1]
    batch = tokens.batch([0])
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1, 1]]


def test_models_without_token_types_get_none(models):
    tokens = tokenize(models["llama"], ["bad"], template=None, max_length=10)
    assert tokens.token_types is None
    assert tokens.batch([0]).token_type_ids is None
    assert tokens.pad_id == 0


def test_long_texts_are_cut_at_the_end(models):
    tokens = tokenize(models["bert"], ["the film was not good"], template=None, max_length=5)
    assert words(tokens, 0) == "<cls> the film was <sep>"


def test_a_template_stays_whole_when_the_text_is_cut(models):
    texts = ["the film was not very good but bright", "bad"]
    tokens = tokenize(models["llama"], texts, template="a plot {text} it was", max_length=7)
    assert words(tokens, 0) == "a plot the film was it was"
    assert words(tokens, 1) == "a plot bad it was"


def test_a_template_takes_the_pair_inline_or_as_a_second_sequence(models):
    inline = tokenize(models["bert"], ["bad"], ["good"], template="{text_pair} and {text}", max_length=9)
    assert words(inline, 0) == "<cls> good and bad <sep>"
    second = tokenize(models["bert"], ["bad"], ["good"], template="it was {text}", max_length=9)
    assert words(second, 0) == "<cls> it was bad <sep> good <sep>"


def test_braces_in_a_text_are_not_filled_in(models):
    texts, pairs = ["{text_pair}"], ["good"]
    tokens = tokenize(models["llama"], texts, pairs, template="{text} {text_pair}", max_length=9)
    assert words(tokens, 0) == "<unk> good"


def test_a_template_without_room(models):
    with pytest.raises(TooLongError, match="example 0: the template leaves no room for the text in 3 tokens"):
        tokenize(models["llama"], ["bad"], template="the plot was {text} and", max_length=3)


def test_more_tokens_than_the_model_takes(models):
    with pytest.raises(TooLongError, match="example 1 has 70 tokens, but the model takes 64; set max_length to 64"):
        tokenize(models["llama"], ["bad", "good " * 70], template=None, max_length=100)


@pytest.mark.parametrize("said", [-1, 0, None, 1e30])
def test_a_tokenizer_without_a_limit(tmp_path, said):
    folder = save_tiny("bert", tmp_path)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": said}))
    tokens = tokenize(ModelSettings(str(folder)), ["the film was good"], template=None, max_length=66)
    assert tokens.lengths.tolist() == [6]


def test_a_text_without_a_token(models):
    with pytest.raises(EmptyTextError, match=r"example 1 \('  '\) has no token"):
        tokenize(models["llama"], ["bad", "  "], template=None, max_length=10)


def test_no_tokenizer_there(tmp_path):
    with pytest.raises(ModelLoadError, match="tokenizer of"):
        tokenize(ModelSettings(str(tmp_path)), ["bad"], template=None, max_length=10)


def saved_again(folder, copy, **facts):
    """Copy a model with another tokenizer_config.json."""
    shutil.copytree(folder, copy)
    file = copy / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    return ModelSettings(str(copy))


def test_a_tokenizer_of_another_class_that_drops_the_texts_is_refused(models, tmp_path):
    texts = ["the film was great", "terrible acting"] * 8
    tokenize(saved_again(models["bert"].path, tmp_path / "same"), texts, template=None, max_length=10)
    other = saved_again(models["bert"].path, tmp_path / "other", tokenizer_class="LlamaTokenizer")
    with pytest.raises(
        ModelLoadError, match=r"\(LlamaTokenizer\) drops .* letters .* tokenizer_class in tokenizer_config"
    ):
        tokenize(other, texts, template=None, max_length=10)


def test_what_a_tokenizer_raises_at_a_text_is_one_message(models, tmp_path):
    settings = saved_again(models["bert"].path, tmp_path / "unknown")
    file = tmp_path / "unknown" / "tokenizer.json"
    facts = json.loads(file.read_text())
    facts["model"]["unk_token"] = "<nowhere>"
    file.write_text(json.dumps(facts))
    with pytest.raises(ModelLoadError, match=r"the tokenizer of .*unknown cannot read these texts: .*; correct what"):
        tokenize(settings, ["the zebra"], template=None, max_length=10)


@pytest.mark.parametrize(
    ("model_type", "name", "content", "package"),
    [
        ("t5", "spiece.model", b"\n\x0e\n\x05<unk>", "sentencepiece"),
        ("albert", "spiece.model", b"\n\x0e\n\x05<unk>", "sentencepiece"),
        ("xlm-roberta", "sentencepiece.bpe.model", b"\n\x0e\n\x05<unk>", "sentencepiece"),
        ("deberta-v2", "spm.model", b"\n\x0e\n\x05<unk>", "sentencepiece"),
        ("llama", "tokenizer.model", b"\n\x0e\n\x05<unk>", "sentencepiece"),
        # transformers knows no tokenizer of it then
        ("marian", "source.spm", b"\n\x0e\n\x05<unk>", "sentencepiece"),
        ("llama", "tokenizer.model", b"IQ== 0\nbroken\n", "tiktoken"),
    ],
)
def test_a_vocabulary_that_no_installed_package_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, name: str, content: bytes, package: str
):
    monkeypatch.setattr("finetune.libraries.tokenizer_files.find_spec", lambda _name: None)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelLoadError, match=f"its vocabulary {name} is read by {package}, .*pip install {package},"):
        load_tokenizer(ModelSettings(str(tmp_path)))
