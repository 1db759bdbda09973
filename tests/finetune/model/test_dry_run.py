"""Architectures that cannot be run or differentiated: told without a weight, and never of those that can."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.errors import FinetuneError, ModelRunError, UnsupportedModelError
from finetune.model import dry_run as module
from finetune.model.dry_run import dry_run
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.errors import NotRecordedError
from tests.tiny_models import ALL_TARGETS, FAMILIES, Kind, save_tiny

TEXTS = ["the film was very good", "a plot", "it was dull but the acting was great and the story was not bad"]
SIZES = {"vocab_size": 23, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 24}
WORDS = HeadSettings("label_words", in_kernel=False, words=("bad", "good"))


def lora(*targets: str) -> AdapterSettings:
    return AdapterSettings("lora", 2, 4.0, targets)


def texts_of(settings: ModelSettings, template: str | None = None) -> TokenizedTexts:
    return tokenize(settings, TEXTS, template=template, max_length=32)


def described(folder: Path, model_type: str, **changes: Any) -> ModelSettings:
    """Put the configuration of another architecture beside BERT's tokenizer; there are no weights."""
    save_tiny("bert", folder)
    (folder / "model.safetensors").unlink()
    AutoConfig.for_model(model_type, **{"max_position_embeddings": 64, "pad_token_id": 0} | changes).save_pretrained(
        folder
    )
    return ModelSettings(str(folder), dtype="float64")


def test_a_backward_pass_of_its_own(tmp_path: Path):
    settings = described(
        tmp_path, "reformer", vocab_size=23, hidden_size=16, num_attention_heads=2, attention_head_size=8,
        attn_layers=["local", "local"], feed_forward_size=24, axial_pos_shape=[8, 8], axial_pos_embds_dim=[8, 8],
        local_attn_chunk_length=8, is_decoder=False,
    )  # fmt: skip
    for adapter in (lora("query"), replace(lora("query"), kind="none")):
        with pytest.raises(NotRecordedError, match=r"self_attention\.query.* a backward pass of their own"):
            dry_run(settings, adapter, HeadSettings("random"), texts_of(settings), n_outputs=2)


def test_lengths_that_an_architecture_does_not_take(tmp_path: Path):
    settings = described(tmp_path, "nystromformer", **SIZES, segment_means_seq_len=64, num_landmarks=4)
    with pytest.raises(ModelRunError, match=r"Nystromformer.* cannot be run on these texts.*use another architecture"):
        dry_run(settings, lora("query"), HeadSettings("random"), texts_of(settings), n_outputs=2)


def test_label_words_behind_a_bias_that_is_not_the_embedding_s(tmp_path: Path):
    save_tiny("bert", tmp_path, masked=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    config = AutoConfig.for_model(
        "esm", **SIZES | {"vocab_size": len(tokenizer)}, mask_token_id=tokenizer.mask_token_id, pad_token_id=0,
        position_embedding_type="rotary",
    )  # fmt: skip
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    settings = ModelSettings(str(tmp_path), dtype="float64")
    texts = texts_of(settings, "{text} it was {mask}")
    with pytest.raises(UnsupportedModelError, match=r"EsmForMaskedLM changes its logits .* use a random or ridge head"):
        dry_run(settings, lora("query"), WORDS, texts, n_outputs=2)
    dry_run(settings, lora("query"), HeadSettings("random"), texts, n_outputs=2)


# an encoder alone has no words
@pytest.mark.parametrize(
    ("words", "kind"),
    [(words, kind) for words in (False, True) for kind in FAMILIES if not words or kind != "t5_gated"],
)
def test_what_runs_passes_whole_and_shallow(tmp_path: Path, kind: Kind, words: bool, monkeypatch: pytest.MonkeyPatch):
    masked = words and kind in ("bert", "roberta")
    settings = ModelSettings(str(save_tiny(kind, tmp_path, layers=4, masked=masked)), dtype="float64")
    template = ("{text} it was {mask}" if masked else "{text} it was") if words else None
    arguments = lora(*ALL_TARGETS[kind][:2]), WORDS if words else HeadSettings("random"), texts_of(settings, template)
    dry_run(settings, *arguments, n_outputs=2)
    tried: list[int] = []
    monkeypatch.setattr(module, "_run", lambda trial: tried.append(trial.config.get_text_config().num_hidden_layers))
    monkeypatch.setattr(module, "_SMALL", 0)
    dry_run(settings, *arguments, n_outputs=2)
    assert tried == [2]


def test_only_what_fails_whole_is_refused_and_nothing_large_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = ModelSettings(str(save_tiny("bert", tmp_path, layers=4)), dtype="float64")
    arguments = settings, lora("3.attention.self.query"), HeadSettings("random"), texts_of(settings)
    # the shallow copy has no such layer
    monkeypatch.setattr(module, "_SMALL", 0)
    dry_run(*arguments, n_outputs=2)
    with pytest.raises(FinetuneError, match="matches no linear module"):
        dry_run(settings, lora("nothing"), *arguments[2:], n_outputs=2)
    monkeypatch.setattr(module, "_LARGE", 0)
    dry_run(settings, lora("nothing"), *arguments[2:], n_outputs=2)


def test_a_copy_that_memory_has_no_room_for_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = ModelSettings(str(save_tiny("bert", tmp_path)), dtype="float64")
    arguments = settings, lora("query"), HeadSettings("random"), texts_of(settings)

    def no_room(_trial: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes")

    monkeypatch.setattr(module, "_run", no_room)
    dry_run(*arguments, n_outputs=2)
