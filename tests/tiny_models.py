"""Tiny models with random weights and a whitespace tokenizer, saved to a folder as a checkpoint would be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
)

Kind = Literal["bert", "roberta", "llama", "gpt2"]

# fmt: off
WORDS = (
    "the", "a", "film", "plot", "is", "was", "it", "great", "terrible", "good", "bad", "dull", "bright", "very", "not",
    "and", "but", "story", "acting",
)
# fmt: on
SPECIAL = ("<pad>", "<unk>", "<cls>", "<sep>")
MASK = "<mask>"

# the targets that cover every linear module of a layer
ALL_TARGETS: dict[Kind, tuple[str, ...]] = {
    "bert": ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
    "roberta": ("query", "key", "value", "attention.output.dense", "intermediate.dense"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "gpt2": ("c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"),
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
    size = len(vocabulary) + len(SPECIAL) + masked
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(kind, layers, hidden, size, n_labels, masked)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    _tokenizer(kind, vocabulary, masked).save_pretrained(folder)
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
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=2 * hidden, max_position_embeddings=64,
            attention_dropout=0.5, bos_token_id=2, eos_token_id=3, pad_token_id=None,
        )
    )  # fmt: skip


def _tokenizer(kind: Kind, vocabulary: Sequence[str], masked: bool) -> PreTrainedTokenizerFast:
    words = [*SPECIAL, *vocabulary] + [MASK] * masked
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    encoder = kind in ("bert", "roberta")
    if encoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<cls> $A <sep>", pair="<cls> $A <sep> $B:1 <sep>:1", special_tokens=[("<cls>", 2), ("<sep>", 3)]
        )
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if kind == "bert" else [])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        # decoders often come without a padding token
        pad_token="<pad>" if encoder else None,
        cls_token="<cls>" if encoder else None,
        sep_token="<sep>" if encoder else None,
        mask_token=MASK if masked else None,
        model_input_names=names,
        model_max_length=64,
    )
