"""The configuration of an architecture of transformers, with every size made as small as the architecture takes it."""

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

VOCABULARY = 64
_WIDTH, _HEADS, _LAYERS, _INNER, _EXPERTS, _POSITIONS = 16, 2, 2, 24, 4, 128

# what configurations call their sizes; a name that an architecture does not have is passed over
_SIZES: dict[str, int] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "lru_width"), _WIDTH),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers"), _LAYERS),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers", "num_encoder_layers"), _LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads"), _HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "linear_num_key_heads"), _HEADS),
    **dict.fromkeys(("linear_num_value_heads", "linear_num_heads", "n_mamba_heads"), _HEADS),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("linear_head_dim", "global_head_dim", "mamba_d_head", "mamba_head_dim"), 8),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_inner", "d_ff", "n_inner", "hidden_dim"), _INNER),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size"), _INNER),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), _EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "n_groups"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), _POSITIONS),
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state", "mamba_n_heads", "mamba_num_heads"), 4),
    **dict.fromkeys(("mamba_d_conv", "mamba_chunk_size", "chunk_size", "time_step_rank"), 4),
    "qk_rope_head_dim": 4, "qk_head_dim": 12, "mamba_d_ssm": 32, "mamba_expand": 2,
    # shorter than the texts, so that windows count
    "attention_window": 4, "sliding_window": 6,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip


def tiny_config(model_type: str) -> PreTrainedConfig:
    """Return the configuration; whatever the architecture raises about it comes through."""
    made = CONFIG_MAPPING[model_type]
    if model_type in _WHOLE:
        return made(**_WHOLE[model_type])
    return _shrunk(made, _OVERRIDES.get(model_type, {}))


def _shrunk(made: Any, overrides: Mapping[str, Any]) -> PreTrainedConfig:
    default = made()
    parts = {name: getattr(default, name, None) for name in getattr(made, "sub_configs", {})}
    options: dict[str, Any] = {
        name: _shrunk(type(part), overrides.get(name, {}))
        for name, part in parts.items()
        if hasattr(part, "model_type")
    }
    options |= {name: size for name, size in _SIZES.items() if _takes(made, default, name)}
    kinds = getattr(default, "layer_types", None)
    if isinstance(kinds, list) and _is_settable(made, "layer_types"):
        # two layers of different kinds, if there are several
        distinct = list(dict.fromkeys(kinds))
        options["layer_types"] = (distinct * 2)[:_LAYERS]
    return made(**options | {name: value for name, value in overrides.items() if name not in parts})


def _takes(made: Any, default: Any, name: str) -> bool:
    """Tell whether a size is one that the architecture has by default; 0 and None turn off the part of that size."""
    if not _is_settable(made, name) or name in getattr(made, "attribute_map", {}):
        return False
    try:
        value = getattr(default, name, None)
    except Exception:  # of a class that only newer releases have
        # it differs between layers
        return True
    if value is None:
        return hasattr(default, name) and name not in ("sliding_window", "q_lora_rank", "n_inner")
    return not isinstance(value, list | dict) and (value != 0 or name == "pad_token_id" or isinstance(value, bool))


def _is_settable(made: Any, name: str) -> bool:
    found = getattr(made, name, None)
    return not isinstance(found, property) or found.fset is not None


_DOTS3: dict[str, Any] = {
    "swa_num_attention_heads": 2, "swa_num_key_value_heads": 2, "swa_q_lora_rank": 8, "swa_kv_lora_rank": 8,
    "swa_head_dim": 12, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8, "num_attention_heads": 2,
    "num_key_value_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
_QWEN4: dict[str, Any] = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 4,
    "indexer_compress_ratio": 2, "hc_count": 2, "hc_lowrank": 8, "ngram_vocab_size_base": 50, "heads_per_ngram": 2,
    "split_ngram_parts": 2, "make_ngram_vocab_size_divisible_by": 4,
}  # fmt: skip
# what the rules above get wrong
_OVERRIDES: dict[str, dict[str, Any]] = {
    "axk1": {"head_dim": 4},
    "codegen": {"n_head": 4, "num_attention_heads": 4, "rotary_dim": 4},
    "deepseek_v3": {"head_dim": 4},
    "blt": {
        "encoder_hash_byte_group_vocab": 16, "encoder_config": {"hidden_size_global": 16},
        "decoder_config": {"hidden_size_global": 16},
    },
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("full_attention", "sliding_attention")
        },
    },
    "dots3_note": {
        "text_config": _DOTS3, "audio_config": {"adapter_input_size": 16, "adapter_out_dim": 16},
        "vision_config": {"mlp_layer_types": ["dense", "dense"], "adapter_in_dim": 16, "adapter_out_dim": 16},
    },
    "dots3_note_text": _DOTS3,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gptj": {"rotary_dim": 4},
    "layoutlmv3": {"coordinate_size": 2, "shape_size": 4, "input_size": 16, "patch_size": 8},
    "lfm2_moe": {"num_dense_layers": 1, "layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 24, "channel_shrink_ratio": 2},
    "longcat_flash": {"expert_ffn_hidden_size": 8, "zero_expert_num": 2, "head_dim": 4},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "mamba2": {"num_heads": 4, "head_dim": 8},
    "mimo_v2_flash": {"num_key_value_heads": 1},
    "phi4_multimodal": {
        "audio_config": {
            "nemo_conv_channels": 8, "ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16, "num_blocks": 1,
        },
    },
    "qwen4_exp": {"text_config": _QWEN4},
    "qwen4_exp_text": _QWEN4,
    "roc_bert": {
        "pronunciation_vocab_size": 16, "shape_vocab_size": 16, "pronunciation_embed_dim": 8, "shape_embed_dim": 8,
    },
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "youtu": {"head_dim": 4},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip

_SIZED: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "max_position_embeddings": _POSITIONS}
_MADE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "pad_token_id": 0, "hidden_size": _WIDTH, "num_attention_heads": _HEADS,
    "num_key_value_heads": _HEADS, "intermediate_size": _INNER,
}  # fmt: skip
# architectures with names of their own for everything, or with sizes that depend on each other
_WHOLE: dict[str, dict[str, Any]] = {
    "bamba": _MADE | {
        "num_hidden_layers": 2, "attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4,
        "mamba_chunk_size": 4, "mamba_n_groups": 1,
    },
    "dbrx": {
        "vocab_size": VOCABULARY, "d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 128,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        "ffn_config": {"hidden_size": 16, "ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "falcon": {
        "vocab_size": VOCABULARY, "pad_token_id": 0, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "ffn_hidden_size": 24,
    },
    "falcon_h1": _MADE | {
        "num_hidden_layers": 2, "head_dim": 8, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8,
        "mamba_d_state": 4, "mamba_chunk_size": 4,
    },
    "flaubert": {
        "n_words": VOCABULARY, "emb_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 128,
        "pad_index": 0,
    },
    "funnel": {
        "vocab_size": VOCABULARY, "pad_token_id": 0, "d_model": 16, "block_sizes": [1, 1], "n_head": 2, "d_head": 8,
        "d_inner": 24, "num_decoder_layers": 1,
    },
    "perceiver": _SIZED | {
        "d_model": 16, "d_latents": 16, "num_latents": 4, "num_blocks": 1, "num_self_attends_per_block": 2,
        "num_self_attention_heads": 2, "num_cross_attention_heads": 2, "qk_channels": 16, "v_channels": 16,
    },
    "prophetnet": _SIZED | {
        "hidden_size": 16, "num_encoder_layers": 2, "num_decoder_layers": 2, "num_encoder_attention_heads": 2,
        "num_decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    },
    "recurrent_gemma": _MADE | {
        "num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": 8, "lru_width": 16, "attention_window_size": 6,
    },
    "reformer": {
        "vocab_size": VOCABULARY, "pad_token_id": 0, "hidden_size": 16, "num_attention_heads": 2,
        "attention_head_size": 8, "feed_forward_size": 24, "attn_layers": ["local", "local"],
        "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [8, 8], "local_attn_chunk_length": 4,
        "max_position_embeddings": 64, "is_decoder": False,
    },
    "xlm": _SIZED | {"emb_dim": 16, "n_layers": 2, "n_heads": 2},
    "xlnet": {"vocab_size": VOCABULARY, "pad_token_id": 0, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24},
    "zamba": _MADE | {
        "num_hidden_layers": 6, "attn_layer_period": 2, "attn_layer_offset": 1, "attention_head_dim": 16,
        "attention_hidden_size": 32, "mamba_d_state": 4, "n_mamba_heads": 2, "mamba_dt_rank": 4,
    },
    "zamba2": _MADE | {
        "num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "mamba"], "mamba_d_state": 4,
        "mamba_ngroups": 1, "n_mamba_heads": 4, "chunk_size": 4, "num_mem_blocks": 1, "adapter_rank": 4,
        "attention_head_dim": 16, "kv_channels": 8,
    },
}  # fmt: skip
