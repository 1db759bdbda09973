"""Sweeps over models that share layers, pad on the left, end texts inside of them, see windows or count positions anew.

The reference is transformers alone: one example at a time, without padding, float64, plain autograd.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from finetune.model.precision import KeepDouble
from tests.orchestrator.sweeps import make_sweep, results_of, run_spec, write_data
from tests.tiny_models import WORDS, save_tiny

N = 10
MAX_LENGTH = 16


@dataclass(frozen=True)
class Case:
    """A model that somebody might use.

    Attributes:
        model_type: its architecture.
        targets: what is adapted.
        config: what differs from a small configuration.
        decoder: whether the last token is read, rather than what the architecture's head reads.
        tokenizer: what differs from a tokenizer that pads on the right.
        texts: those that come first; the others are made up.
        pairs: whether each text has a second one.
        alone: whether texts cannot share batches.
    """

    model_type: str
    targets: tuple[str, ...]
    config: dict[str, Any] = field(default_factory=dict)
    decoder: bool = False
    tokenizer: dict[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    pairs: bool = False
    alone: bool = False


LEFT: dict[str, Any] = {"padding_side": "left"}
END_PADS: dict[str, Any] = {"pad_token": "<sep>", "eos_token": "<sep>"}
ENDS = ("the film <sep> was dull", "good acting <sep>", "<sep>", "<sep> <sep> plot", "not bad <sep> <sep>")
GATED = {"num_key_value_heads": 1, "head_dim": 8}

CASES = {
    "layers that are one": Case(
        "albert", ("query", "ffn"), {"num_hidden_layers": 3, "inner_group_num": 2, "embedding_size": 8}
    ),
    "layers that are one, pairs": Case("albert", ("value",), {"num_hidden_groups": 2}, pairs=True),
    "padding on the left, distances": Case("bloom", ("query_key_value",), {"n_layer": 2, "n_head": 2}, True, LEFT),
    "padding on the left, windows": Case("mistral", ("q_proj", "down_proj"), GATED | {"sliding_window": 3}, True, LEFT),
    "padding on the left, positions": Case("opt", ("v_proj", "out_proj"), {"ffn_dim": 24}, True, LEFT),
    "ends inside of texts": Case("gpt2", ("c_attn",), {"pad_token_id": 3}, True, END_PADS, ENDS),
    "ends inside of texts, padded on the left": Case(
        "llama", ("k_proj",), GATED | {"pad_token_id": 3}, True, END_PADS | LEFT, ENDS
    ),
    "windows by turns, fused": Case(
        "modernbert", ("Wqkv",), {"num_hidden_layers": 3, "local_attention": 4, "global_attn_every_n_layers": 2}
    ),
    "windows by turns, mean read": Case("modernbert", ("Wo",), {"local_attention": 4, "classifier_pooling": "mean"}),
    "windows by turns": Case(
        "gpt_neo", ("out_proj",), {"attention_types": [[["global", "local"], 1]], "window_size": 3}, True
    ),
    "windows by turns, soft caps": Case("gemma3_text", ("o_proj",), GATED | {"sliding_window": 3}, True),
    "one type of token, pairs": Case("roberta", ("query",), {"type_vocab_size": 1, "pad_token_id": 0}, pairs=True),
    "two types of tokens, pairs": Case("bert", ("query",), pairs=True),
    "no types of tokens, pairs": Case(
        "distilbert", ("q_lin",), {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2}, pairs=True
    ),
    "distances by buckets, pairs": Case(
        "deberta-v2",
        ("value_proj",),
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 2},
        pairs=True,
    ),
    "positions behind that of padding": Case("mpnet", ("attn.v",), {"pad_token_id": 1}),
    "windows that are put in a row": Case("longformer", ("query", "value"), {"attention_window": [4, 4]}),
    "pooled on the way": Case(
        "funnel",
        ("q_head", "v_head"),
        {"block_sizes": [1, 2], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 24},
        alone=True,
    ),
    "half of each head turned": Case("gpt_neox", ("dense_4h_to_h",), {}, True, LEFT),
    "texts that stand twice": Case("electra", ("query",), texts=("a dull plot", "a dull plot", "good", "good", "good")),
}


def save(case: Case, folder: Path) -> Path:
    """Save the model of a case and its tokenizer."""
    save_tiny("llama" if case.decoder else "bert", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, **case.tokenizer)
    tokenizer.save_pretrained(folder)
    small = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
    }  # fmt: skip
    config = AutoConfig.for_model(case.model_type)
    known = {name: value for name, value in small.items() if name in {*config.to_dict(), *config.attribute_map}}
    config = AutoConfig.for_model(case.model_type, **known | case.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder


def scores_alone(model: PreTrainedModel, inputs: dict[str, torch.Tensor], *, decoder: bool) -> torch.Tensor:
    if not decoder:
        return model(**inputs).logits[0]
    return model.score(model.base_model(**inputs).last_hidden_state[0, -1])


def reference(folder: Path, case: Case, texts: Sequence[str], pairs: Sequence[str] | None) -> NDArray[np.float64]:
    """Return eigenvalues of the kernel, ascending, from the gradients of each output of each example alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    takes_types = getattr(model.config, "type_vocab_size", 0) > 1
    model.requires_grad_(False)
    parameters = [p for n, p in model.named_parameters() if n.rpartition(".")[0].endswith(case.targets)]
    assert parameters
    for parameter in parameters:
        parameter.requires_grad_(True)
    rows = []
    for i, text in enumerate(texts):
        inputs = dict(tokenizer(text, pairs and pairs[i], truncation=True, max_length=MAX_LENGTH, return_tensors="pt"))
        if not takes_types:
            inputs.pop("token_type_ids", None)
        # norms and tables of positions are computed in single precision otherwise
        with KeepDouble():
            for score in scores_alone(model, inputs, decoder=case.decoder):
                found = torch.autograd.grad(score, parameters, retain_graph=True, allow_unused=True)
                rows.append(
                    torch.cat(
                        [
                            (torch.zeros_like(p) if g is None else g).flatten()
                            for p, g in zip(parameters, found, strict=True)
                        ]
                    )
                )
    jacobian = torch.stack(rows).numpy()
    return np.linalg.eigvalsh(jacobian @ jacobian.T)


@pytest.mark.parametrize("name", CASES)
def test_the_spectrum_is_that_of_each_example_alone(tmp_path: Path, name: str):
    case = CASES[name]
    model = save(case, tmp_path / "model")
    changes = {
        "adapter": {"kind": "none", "target_modules": list(case.targets)},
        "head": {"kind": "pretrained", "in_kernel": False},
        "task.sampling": "first",
        "task.max_length": MAX_LENGTH,
        "grid.layer_sets": ["all_layers"],
        "grid.n_train": [N],
        # a batch has a quarter of a shard's examples
        "compute.shard_examples": 4 * N,
        "compute.batching": "alone" if case.alone else "together",
    } | ({"task.text_pair": "pair"} if case.pairs else {})
    path = make_sweep(tmp_path, changes, model=model)
    texts = pq.read_table(tmp_path / "data.parquet").column("text").to_pylist()
    # longer than what is kept of them, in pairs and alone
    texts = [*case.texts, " ".join(WORDS), *texts[1 + len(case.texts) :]]
    pairs = [*reversed(texts)] if case.pairs else None
    write_data(tmp_path / "data.parquet", text=texts, pair=pairs)
    assert not run_spec(path).report.failures
    found = np.sort(results_of(path).spectra.to_pandas()["eigenvalues"][0])
    expected = reference(model, case, texts[:N], pairs)
    assert len(found) == len(expected) == 2 * N
    assert expected[-1] > 0
    assert np.abs(found - expected).max() < 1e-10 * expected[-1]
