"""Sweeps of models in which what shares a batch changes an example's numbers: refused, or one example at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BigBirdConfig,
    BigBirdForSequenceClassification,
    ConvBertConfig,
    ConvBertForSequenceClassification,
    FNetConfig,
    FNetForSequenceClassification,
    PreTrainedModel,
)

from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, run_spec, write_data, write_spec
from tests.tiny_models import WORDS, save_tiny

SMALL = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
N_TRAIN, N_EVAL = 8, 4
TRAINING = {"epochs": 1, "batch_size": 3, "learning_rate": 0.01, "optimizer": "sgd", "momentum": 0.0}
SHARED = {
    "task.max_length": 64, "task.sampling": "first", "task.n_eval": N_EVAL, "grid.n_train": [N_TRAIN],
    "adapter.kind": "none", "adapter.rank": None, "head.kind": "pretrained", "head.in_kernel": False,
    "grid.layer_sets": ["all_layers"], "compute.shard_examples": 8,
}  # fmt: skip


def make(folder: Path, model: PreTrainedModel, target: str, changes: dict[str, Any]) -> Path:
    save_tiny("bert", folder / "tokenizer")
    model.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(folder / "model")
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, size)) for size in draw.integers(1, 30, 20)]
    write_data(folder / "data.parquet", n=len(texts), text=texts)
    return write_spec(folder, SHARED | {"adapter.target_modules": [target]} | changes)


def fnet() -> PreTrainedModel:
    torch.manual_seed(0)
    return FNetForSequenceClassification(FNetConfig(**SMALL, tpu_short_seq_length=64))


def big_bird() -> PreTrainedModel:
    torch.manual_seed(0)
    config = BigBirdConfig(**SMALL, attention_type="block_sparse", block_size=2, num_random_blocks=1)
    return BigBirdForSequenceClassification(config)


def conv_bert() -> PreTrainedModel:
    torch.manual_seed(0)
    return ConvBertForSequenceClassification(ConvBertConfig(**SMALL, embedding_size=16, conv_kernel_size=3))


def one_at_a_time(folder: Path, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (n, C) and rows (n C, p) of the training examples, each the first that a new model sees."""
    import pyarrow.parquet as pq

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    scores, rows = [], []
    for text in pq.read_table(folder / "data.parquet")["text"].to_pylist()[:N_TRAIN]:
        model = AutoModelForSequenceClassification.from_pretrained(folder / "model", dtype=torch.float64).eval()
        inside = [p for name, p in model.named_parameters() if name.rpartition(".")[0].endswith(target)]
        logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        scores.append(logits.detach().numpy())
        for logit in logits:
            gradients = torch.autograd.grad(logit, inside, retain_graph=True)
            rows.append(torch.cat([each.flatten() for each in gradients]).numpy())
    return np.stack(scores), np.stack(rows)


@pytest.mark.parametrize(
    ("model", "target", "said"),
    [
        (fnet, "intermediate.dense", "padding reaches the text itself, first in fnet.encoder.layer.0.fourier.self"),
        (big_bird, "query", "bert.attention_type of BigBirdModel from 'block_sparse' to 'original_full'"),
    ],
)
def test_plan_refuses_it_by_its_mechanism_and_it_is_right_where_every_example_goes_alone(
    tmp_path: Path, model: Any, target: str, said: str
):
    answer = ntksweep("plan", make(tmp_path, model(), target, {}))
    assert answer.status == 2
    assert said in answer.errors
    assert "set compute.batching: alone" in answer.errors

    products = {**TRAINING, "linearization": "products"}
    spec = write_spec(
        tmp_path,
        SHARED
        | {"adapter.target_modules": [target], "compute.batching": "alone", "finetune": products}
        | {"results.folder": str(tmp_path / "alone")},
    )
    assert run_spec(spec).report.failures == []
    scores, rows = one_at_a_time(tmp_path, target)
    results = results_of(spec)
    eigenvalues = np.linalg.eigvalsh(rows @ rows.T)[::-1]
    found = np.array(results.spectra.to_pandas()["eigenvalues"][0])
    assert np.abs(found - eigenvalues[: len(found)]).max() < 1e-10 * eigenvalues[0]
    cell = results.cells.to_pandas().iloc[0]
    targets = np.where(np.arange(2) == np.arange(N_TRAIN)[:, None] % 2, 1.0, -1.0)
    assert cell["initial_train_loss"] == pytest.approx(((targets - scores) ** 2).sum() / (2 * N_TRAIN), rel=1e-10)


def test_what_plan_cannot_see_is_refused_before_anything_is_captured(tmp_path: Path):
    """A copy in half precision tells nothing; the stage tries the model itself, in single precision."""
    ending = run_spec(make(tmp_path, conv_bert(), "query", {"model.dtype": "bfloat16"}))
    (failure,) = ending.report.failures
    assert failure.stage.kind == "batching"
    assert "first in convbert.encoder.layer.0.attention.self.key_conv_attn_layer.depthwise" in failure.message
    assert not list((tmp_path / "results" / "artifacts").glob("capture/*"))


def test_alone_changes_no_number_of_a_model_whose_examples_stay_apart(tmp_path: Path):
    """Heads, rows, cells that train, linearizations and kernels that are followed, with a cache of frozen layers."""
    training = {**TRAINING, "kernel_examples": 3, "stacked_cells": 2, "num_evaluations": 2}
    changes = {"head.kind": "ridge", "grid.layer_sets": ["each_layer"], "finetune": training}
    found = {}
    for batching in ("together", "alone"):
        spec = make_sweep(tmp_path / batching, changes | {"compute.batching": batching})
        assert run_spec(spec).report.failures == []
        found[batching] = results_of(spec)
    for name in ("cells", "trajectories"):
        together, alone = (getattr(found[batching], name).to_pandas() for batching in ("together", "alone"))
        numbers = [column for column in together if together[column].dtype.kind == "f" and "seconds" not in column]
        assert len(numbers) > 5
        for column in numbers:
            np.testing.assert_allclose(together[column], alone[column], rtol=1e-8, atol=1e-9, err_msg=column)
