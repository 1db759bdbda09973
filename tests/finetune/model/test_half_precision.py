"""Models in bfloat16 and float16: rows near those of float32, sums in float32, and the error that is reported."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.analysis.precision_error import RowSample, precision_error, sample_rows
from finetune.data.targets import kernel_outputs
from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.model.prefix import PrefixCache
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from tests.tiny_models import ALL_TARGETS, KINDS, Kind, save_tiny

TEXTS = ("the film was great", "a dull plot", "it was very good and the acting was not bright", "bad bad story", "good")
HALVES = {"bfloat16": 2**-8, "float16": 2**-11}
"""By precision its unit roundoff."""
FULL = partial(kernel_outputs, outputs="full")
MEASURED: tuple[Kind, ...] = ("bert", "llama", "gpt2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def build(folder: Path, kind: Kind, dtype: str, head: str = "random", **options: Any) -> Scorer:
    return build_scorer(
        ModelSettings(str(folder), dtype=dtype, **options),  # type: ignore[arg-type]
        AdapterSettings("lora", 2, 4.0, ALL_TARGETS[kind], "random"),
        HeadSettings(head),  # type: ignore[arg-type]
        n_outputs=2, adapter_seed=1, head_seed=2,
    )  # fmt: skip


def tokens_of(folder: Path) -> TokenizedTexts:
    return tokenize(ModelSettings(str(folder)), TEXTS, template=None, max_length=32)


def sample(scorer: Scorer, folder: Path) -> RowSample:
    tokens = tokens_of(folder)
    batches = [tokens.batch(positions) for positions in ([0, 1], [2, 3, 4])]
    return sample_rows(lambda batch: scorer.rows(batch, FULL), batches)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_near_those_of_single_precision(folders: dict[str, Path], kind: Kind, dtype: str):
    found = sample(build(folders[kind], kind, dtype), folders[kind])
    expected = sample(build(folders[kind], kind, "float32"), folders[kind])
    error = precision_error(found, expected)
    # gradients at T5's keys pass through a softmax that is nearly one-hot, and all but cancel
    most = 160 if kind.startswith("t5") else 32
    assert all(rows.dtype == torch.float32 for rows in found.rows.values())
    assert 0 < error.scores < 32 * HALVES[dtype]
    assert all(0 < value < most * HALVES[dtype] for value in error.groups.values())
    assert 0 < error.kernel < 16 * HALVES[dtype]


@pytest.mark.parametrize("dtype", HALVES)
def test_adapters_have_the_precision_of_the_model(folders: dict[str, Path], dtype: str):
    for kind in MEASURED:
        scorer = build(folders[kind], kind, dtype)
        assert {parameter.dtype for parameter in scorer.model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize("dtype", HALVES)
def test_what_leaves_the_model_is_in_single_precision(folders: dict[str, Path], dtype: str):
    for kind in MEASURED:
        scorer, batch = build(folders[kind], kind, dtype), tokens_of(folders[kind]).batch([0, 1])
        scores, rows = scorer.rows(batch, FULL)
        assert {values.dtype for values in (scores, scorer.logits(batch), scorer.features(batch), *rows.values())} == {
            torch.float32
        }


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", MEASURED)
def test_layers_that_run_again_give_the_same_rows(folders: dict[str, Path], kind: Kind, dtype: str):
    plain, again = (
        sample(build(folders[kind], kind, dtype, checkpointing=checkpointing), folders[kind])
        for checkpointing in (False, True)
    )
    assert all(torch.equal(rows, again.rows[name]) for name, rows in plain.rows.items())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", MEASURED)
def test_kept_states_of_frozen_layers_give_the_same_features(folders: dict[str, Path], kind: Kind, dtype: str):
    scorer, tokens = build(folders[kind], kind, dtype), tokens_of(folders[kind])
    cache = PrefixCache(scorer, 1, ["1." + ALL_TARGETS[kind][0]])
    cache.fill(tokens, batch_tokens=64)
    batch = tokens.batch([0, 1])
    expected = scorer.features(batch)
    with cache.reading([0, 1], batch):
        assert (scorer.features(batch) - expected).norm() <= 8 * HALVES[dtype] * expected.norm()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
def test_label_words_are_read(folders: dict[str, Path], kind: Kind, dtype: str):
    logits = {}
    for precision in (dtype, "float32"):
        scorer = build_scorer(
            ModelSettings(str(folders[kind]), dtype=precision),  # type: ignore[arg-type]
            AdapterSettings("lora", 2, 4.0, ALL_TARGETS[kind]),
            HeadSettings("label_words", in_kernel=False, words=("bad", "great")),
            n_outputs=2, adapter_seed=1, head_seed=2,
        )  # fmt: skip
        logits[precision] = scorer.logits(tokens_of(folders[kind]).batch([0, 1]))
    difference = logits[dtype] - logits["float32"]
    assert difference.norm() <= 32 * HALVES[dtype] * logits["float32"].norm()


# --- the error that is reported


def test_the_error_is_the_relative_distance():
    rng = np.random.default_rng(0)
    shapes = {"a": (6, 5), "b": (6, 3)}
    exact = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    moved = {name: rows * 1.01 for name, rows in exact.items()} | {"b": exact["b"] + 0.1}
    scores = rng.normal(size=(3, 2))
    found, expected = (
        RowSample(torch.from_numpy(own), {name: torch.from_numpy(rows) for name, rows in each.items()})
        for own, each in ((scores + 0.5, moved), (scores, exact))
    )
    error = precision_error(found, expected)
    assert error.n_examples == 3
    assert error.scores == pytest.approx(0.5 * 6**0.5 / np.linalg.norm(scores))
    assert error.groups["a"] == pytest.approx(0.01)
    assert error.groups["b"] == pytest.approx(0.1 * 18**0.5 / np.linalg.norm(exact["b"]))
    kernels = [sum(rows @ rows.T for rows in each.values()) for each in (moved, exact)]
    assert error.kernel == pytest.approx(np.linalg.norm(kernels[0] - kernels[1]) / np.linalg.norm(kernels[1]))


def test_rows_that_are_zero_in_both_have_no_error():
    zero = RowSample(torch.ones(1, 1), {"a": torch.zeros(1, 4), "empty": torch.zeros(1, 0)})
    error = precision_error(zero, zero)
    assert error.groups == {"a": 0.0, "empty": 0.0}
    assert error.kernel == error.scores == 0.0


def test_samples_of_other_groups_are_refused():
    first, second = (RowSample(torch.ones(1, 1), {name: torch.ones(1, 2)}) for name in "ab")
    with pytest.raises(ValueError, match="other examples, outputs or groups"):
        precision_error(first, second)
