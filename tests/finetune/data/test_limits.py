"""Tokenizers that are not there or not the model's, and the room that positions leave."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel, AutoTokenizer

from finetune.data.limits import text_limits
from finetune.data.tokens import tokenize
from finetune.errors import ModelLoadError, TooLongError
from finetune.settings import ModelSettings
from tests.tiny_models import save_tiny


def test_a_folder_without_vocabulary(tmp_path: Path):
    save_tiny("bert", tmp_path)
    for path in tmp_path.glob("token*"):
        path.unlink()
    with pytest.raises(ModelLoadError, match="knows no word: its vocabulary is missing"):
        tokenize(ModelSettings(str(tmp_path)), ["the film"], template=None, max_length=10)


def test_ids_beyond_the_embedding_and_a_padding_token_that_is_one(tmp_path: Path):
    save_tiny("llama", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<fill>"})
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(tmp_path)
    settings = ModelSettings(str(tmp_path))
    # padding is masked, so that any id of the model does
    assert tokenize(settings, ["the film"], template=None, max_length=10).pad_id == 0
    with pytest.raises(
        ModelLoadError,
        match=rf"has {size + 2} tokens, .* has {size} rows: example 1 holds 'zebra', whose id is {size + 1}",
    ):
        tokenize(settings, ["the film", "a zebra"], template=None, max_length=10)


def test_texts_that_are_nearly_all_unknown(tmp_path: Path):
    settings = ModelSettings(str(save_tiny("bert", tmp_path)))
    foreign = ["der Film war"] * 9
    with pytest.raises(ModelLoadError, match=r"27 of 29 tokens are unknown to it, as in example 0 \('der Film war'\)"):
        tokenize(settings, [*foreign, "the film"], template=None, max_length=10)
    tokenize(settings, ["der Film war", *["the film"] * 9], template=None, max_length=10)


SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize(
    ("model_type", "padding", "room"),
    [
        ("bert", 0, 34),
        ("roberta", 1, 32),
        ("roberta", 0, 33),
        ("xlm-roberta", 1, 32),
        ("camembert", 1, 32),
        ("mpnet", 1, 32),
        ("roberta-prelayernorm", 1, 32),
        ("data2vec-text", 1, 32),
        ("electra", 0, 34),
        ("xlnet", 5, None),
    ],
)
def test_positions_start_behind_that_of_padding(tmp_path: Path, model_type: str, padding: int, room: int | None):
    sizes = {"vocab_size": 30, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16} if room is None else SIZES
    limit = {} if room is None else {"max_position_embeddings": 34}
    config = AutoConfig.for_model(model_type, **sizes, **limit, pad_token_id=padding)
    config.save_pretrained(tmp_path)
    assert text_limits(ModelSettings(str(tmp_path))).tokens == room
    if room is not None:
        # one token more does not go through the model itself
        import torch

        model = AutoModel.from_config(config).eval()
        with torch.no_grad():
            model(torch.full((1, room), 7))
            with pytest.raises((IndexError, RuntimeError)):
                model(torch.full((1, room + 1), 7))


def test_the_right_number_is_named(tmp_path: Path):
    save_tiny("roberta", tmp_path)
    AutoTokenizer.from_pretrained(tmp_path, model_max_length=1000).save_pretrained(tmp_path)
    with pytest.raises(TooLongError, match="has 66 tokens, but the model takes 65; set max_length to 65"):
        tokenize(ModelSettings(str(tmp_path)), ["the " * 80], template=None, max_length=66)


@pytest.mark.parametrize(("kind", "known"), [("bert", 2), ("bert", 1), ("roberta", 1), ("distilbert", 0)])
def test_types_of_tokens_reach_models_that_tell_them_apart(tmp_path: Path, kind: str, known: int):
    save_tiny("bert", tmp_path)
    changes = {"type_vocab_size": known} if known else {}
    AutoConfig.for_model(kind, vocab_size=30, **changes).save_pretrained(tmp_path)
    settings = ModelSettings(str(tmp_path))
    assert text_limits(settings).types == known
    types = tokenize(settings, ["the film"], ["a plot"], template=None, max_length=16).token_types
    assert (types is None) == (known < 2)


def test_a_tokenizer_with_more_types_than_the_model(tmp_path: Path):
    save_tiny("bert", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<cls>:2 $A <sep>", pair="<cls>:2 $A <sep> $B:1 <sep>:1", special_tokens=[("<cls>", 2), ("<sep>", 3)]
    )
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match=r"gives tokens the type 2, but the model has 2 types of tokens"):
        tokenize(ModelSettings(str(tmp_path)), ["the film"], template=None, max_length=16)


LISTS = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}


@pytest.mark.parametrize(
    ("scaling", "room"),
    [
        (None, 32),
        ({"rope_type": "linear", "factor": 4.0}, 128),
        ({"rope_type": "dynamic", "factor": 2.0}, 64),
        # as in Qwen 2.5, which keeps the length before scaling, and DeepSeek, which has both
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, 128),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}, 32),
        ({"rope_type": "yarn", "factor": 4.0}, 128),
        # Llama 3.1 goes further than its factor says
        (
            {"rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 8, "low_freq_factor": 1.0}
            | {"high_freq_factor": 4.0},
            32,
        ),
        ({"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 8, **LISTS}, 32),
        ({"rope_type": "longrope", "original_max_position_embeddings": 8, **LISTS}, 32),
    ],
)
def test_scaled_rotary_positions_have_the_room_that_they_are_made_for(
    tmp_path: Path, scaling: dict[str, Any] | None, room: int
):
    rope = {} if scaling is None else {"rope_parameters": scaling | {"rope_theta": 1e4}}
    config = AutoConfig.for_model("llama", **SIZES, max_position_embeddings=32, **rope)
    config.save_pretrained(tmp_path)
    assert text_limits(ModelSettings(str(tmp_path))).tokens == room


def test_layers_that_scale_each_in_its_way_have_the_room_that_the_configuration_says(tmp_path: Path):
    kinds = {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {"rope_type": "default"}}
    rope = {name: kind | {"rope_theta": 1e4} for name, kind in kinds.items()}
    config = AutoConfig.for_model("gemma3_text", **SIZES, max_position_embeddings=32, head_dim=8, rope_parameters=rope)
    config.save_pretrained(tmp_path)
    assert text_limits(ModelSettings(str(tmp_path))).tokens == 32
