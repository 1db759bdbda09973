"""Tiny models with random weights and a whitespace tokenizer, saved to a folder as a checkpoint would be."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

Kind = Literal[
    "bert", "roberta", "llama", "gpt2", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3", "t5", "t5_gated",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
# one of each family, for what costs more
FAMILIES: tuple[Kind, ...] = ("bert", "roberta", "llama", "gpt2", "qwen3", "mistral", "gemma2", "t5_gated")
# checkpoints whose input and output embedding are one parameter
TIED: tuple[Kind, ...] = ("gpt2", "qwen2", "gemma", "gemma2", "gemma3")
DECODERS: tuple[Kind, ...] = ("llama", "gpt2", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3")

# fmt: off
WORDS = (
    "the", "a", "film", "plot", "is", "was", "it", "great", "terrible", "good", "bad", "dull", "bright", "very", "not",
    "and", "but", "story", "acting",
)
# fmt: on
SPECIAL = ("<pad>", "<unk>", "<cls>", "<sep>")
MASK = "<mask>"

_GATED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# the targets that cover every linear module of a layer
ALL_TARGETS: dict[Kind, tuple[str, ...]] = {
    "bert": ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
    "roberta": ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
    "llama": _GATED,
    "gpt2": ("c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"),
    "qwen2": _GATED,
    "qwen3": _GATED,
    "mistral": _GATED,
    "gemma": _GATED,
    "gemma2": _GATED,
    "gemma3": _GATED,
    "t5": ("q", "k", "v", "o", "wi", "wo"),
    "t5_gated": ("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
}


def save_tiny(
    kind: Kind,
    folder: Path,
    *,
    layers: int = 2,
    hidden: int = 16,
    vocabulary: Sequence[str] = WORDS,
    seed: int = 0,
    n_labels: int | None = None,
    masked: bool = False,
) -> Path:
    """Save a tiny pretrained model and its tokenizer; weights are larger than usual, so that nothing is nearly linear.

    Dropout is set high in the configuration: whoever forgets eval mode gets other numbers at every call.
    `n_labels` (bert only) saves a classifier with its head, `masked` (bert and roberta) a masked language model, with
    a mask as the last token of its vocabulary.
    """
    tokenizer = _byte_tokenizer(vocabulary) if kind == "qwen2" else _tokenizer(kind, vocabulary, masked)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(kind, layers, hidden, len(tokenizer), n_labels, masked)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
            elif kind.startswith("gemma"):
                # norms multiply by one more than their weight, which is zero at first and would hide the one
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _model(kind: Kind, layers: int, hidden: int, size: int, n_labels: int | None, masked: bool) -> torch.nn.Module:
    if kind in ("bert", "roberta"):
        options = {
            "vocab_size": size, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2,
            "intermediate_size": 2 * hidden, "max_position_embeddings": 66, "pad_token_id": 0,
            "hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5, "classifier_dropout": 0.5,
        }  # fmt: skip
        if kind == "roberta":
            return (RobertaForMaskedLM if masked else RobertaModel)(RobertaConfig(**options))
        if masked:
            return BertForMaskedLM(BertConfig(**options))
        if n_labels is not None:
            return BertForSequenceClassification(BertConfig(**options, num_labels=n_labels))
        return BertModel(BertConfig(**options))
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=size, n_embd=hidden, n_layer=layers, n_head=2, n_positions=64,
                resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5, bos_token_id=2, eos_token_id=3,
            )
        )  # fmt: skip
    if kind in ("t5", "t5_gated"):
        # one saved with its decoder, one as an encoder alone
        return (T5ForConditionalGeneration if kind == "t5" else T5EncoderModel)(
            T5Config(
                vocab_size=size, d_model=hidden, d_kv=hidden // 4, d_ff=2 * hidden, num_layers=layers, num_heads=4,
                relative_attention_num_buckets=8, relative_attention_max_distance=16, dropout_rate=0.5, eos_token_id=3,
                feed_forward_proj="relu" if kind == "t5" else "gated-gelu", decoder_start_token_id=0,
            )
        )  # fmt: skip
    config, model, options = _GATED_DECODERS[kind]
    return model(
        config(
            vocab_size=size, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=2 * hidden, max_position_embeddings=64, head_dim=hidden // 4,
            attention_dropout=0.5, bos_token_id=2, eos_token_id=3, pad_token_id=None, **options,
        )
    )  # fmt: skip


# windows are shorter than sentences, caps low enough to bend the scores
_GEMMA: dict[str, Any] = {"query_pre_attn_scalar": 4, "sliding_window": 3}
_GATED_DECODERS: dict[Kind, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 3}),
    "qwen2": (
        Qwen2Config, Qwen2ForCausalLM,
        {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1, "tie_word_embeddings": True},
    ),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
    "gemma": (GemmaConfig, GemmaForCausalLM, {}),
    "gemma2": (
        Gemma2Config, Gemma2ForCausalLM, _GEMMA | {"attn_logit_softcapping": 1.0, "final_logit_softcapping": 2.0},
    ),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, _GEMMA | {"sliding_window_pattern": 2}),
}  # fmt: skip


def _tokenizer(kind: Kind, vocabulary: Sequence[str], masked: bool) -> PreTrainedTokenizerFast:
    words = [*SPECIAL, *vocabulary] + [MASK] * masked
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    encoder = kind in ("bert", "roberta")
    if encoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<cls> $A <sep>", pair="<cls> $A <sep> $B:1 <sep>:1", special_tokens=[("<cls>", 2), ("<sep>", 3)]
        )
    elif kind.startswith("t5"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <sep>", pair="$A <sep> $B <sep>", special_tokens=[("<sep>", 3)]
        )
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if kind == "bert" else [])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        # decoders often come without a padding token
        pad_token=None if kind in DECODERS else "<pad>",
        cls_token="<cls>" if encoder else None,
        sep_token="<sep>" if encoder else None,
        mask_token=MASK if masked else None,
        model_input_names=names,
        model_max_length=64,
    )


def _byte_tokenizer(vocabulary: Sequence[str]) -> Qwen2Tokenizer:
    """Merge bytes until every word is a token: transformers gives Qwen 2 this class whatever was saved."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator([text for word in vocabulary for text in (word, f"a {word}")], trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    return Qwen2Tokenizer(vocab=learned["vocab"], merges=merges, unk_token="<unk>", pad_token=None, model_max_length=64)
