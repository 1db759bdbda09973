"""Cells of several seeds and learning rates in one model are the cells that each seed has in its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from finetune.data.tokens import TokenizedTexts
from finetune.errors import UnsupportedModelError
from finetune.model.prefix import PrefixCache
from finetune.model.scorer import Scorer
from finetune.training.checkpoint import Checkpoint
from finetune.training.loop import Targets, train, train_cells
from finetune.training.origins import Origin, differing_weights, joined, starting_from
from finetune.training.run import TrainingRun
from finetune.training.settings import Cell, TrainingSettings
from finetune.training.shared_products import shared_products
from finetune.training.stacked import StackedModel
from tests.finetune.training.problems import ADAM, DESCENT, Kept, coded_targets, flat, scorer_of, texts_of
from tests.tiny_models import Kind, save_tiny

TARGETS: dict[Kind, tuple[str, ...]] = {"bert": ("query", "value"), "gpt2": ("c_attn", "mlp.c_proj")}
CELLS = ((0, Cell(0.1, 0.01)), (1, Cell(0.1, 0.01)), (0, Cell(1.0, 0.03)), (1, Cell(0.5, 0.03)))
"""The origin of each cell, and the cell."""
SEEDS = (3, 8)
"""Of the order of examples."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in TARGETS}


def seed_of(folder: Path, kind: Kind, seed: int) -> tuple[Scorer, dict[str, TokenizedTexts], Targets]:
    """Return model, examples and targets of a seed; adapters are random throughout, so that all of them matter."""
    scorer = scorer_of(folder, target_modules=TARGETS[kind], seed=seed, initialization="random")
    texts, targets = texts_of(folder), coded_targets()
    if seed:
        order = np.arange(len(texts["train"]))[::-1]
        texts["train"] = chosen(texts["train"], order)
        targets = replace(targets, train=targets.train[order.copy()])
    return scorer, texts, targets


def chosen(texts: TokenizedTexts, order: np.ndarray) -> TokenizedTexts:
    spans = [slice(texts.offsets[i], texts.offsets[i + 1]) for i in order]
    types = texts.token_types
    return TokenizedTexts(
        np.concatenate([texts.ids[span] for span in spans]),
        np.concatenate([[0], np.cumsum(texts.lengths[order])]),
        None if types is None else np.concatenate([types[span] for span in spans]),
        texts.pad_id,
    )


def groups_of(scorer: Scorer) -> list[str]:
    return [group for group in scorer.groups if group.startswith("1.") or group == "head"]


def prefixes_of(scorer: Scorer, texts: dict[str, TokenizedTexts]) -> dict[str, PrefixCache]:
    caches = {split: PrefixCache(scorer, 1, groups_of(scorer)) for split in texts}
    for split, cache in caches.items():
        cache.fill(texts[split], batch_tokens=16)
    return caches


def together(folder: Path, kind: Kind, *, cached: bool) -> tuple[StackedModel, list[Targets]]:
    seeds = [seed_of(folder, kind, seed) for seed in (0, 1)]
    base = seeds[0][0]
    starts = []
    for scorer, texts, _ in seeds:
        weights = differing_weights(base, scorer)
        with starting_from(weights):
            starts.append(Origin(texts, weights, prefixes_of(base, texts) if cached else {}))
    model = StackedModel(base, groups_of(base), starts, "full", [origin for origin, _ in CELLS])
    return model, [targets for _, _, targets in seeds]


@pytest.mark.parametrize("cached", [False, True], ids=["whole", "cached"])
@pytest.mark.parametrize("kind", list(TARGETS))
@pytest.mark.parametrize(
    "settings",
    [
        replace(DESCENT, steps=6),
        replace(ADAM, gradient_accumulation_steps=2, warmup_steps=2, lr_scheduler_type="cosine", max_grad_norm=1.0),
    ],
    ids=["descent", "adamw"],
)
def test_every_cell_is_trained_as_in_the_model_of_its_seed(
    folders: dict[str, Path], kind: Kind, settings: TrainingSettings, cached: bool
):
    model, targets = together(folders[kind], kind, cached=cached)
    run = train_cells(model, targets, settings, [cell for _, cell in CELLS], seeds=SEEDS)
    for number, (origin, cell) in enumerate(CELLS):
        scorer, texts, own_targets = seed_of(folders[kind], kind, origin)
        alone = train(
            StackedModel(scorer, groups_of(scorer), [Origin(texts)], "full", [0]), own_targets,
            replace(settings, learning_rate=cell.learning_rate), [cell.strength], seed=SEEDS[origin],
        )  # fmt: skip
        expected = flat(alone.cells[0].kept)
        assert np.linalg.norm(flat(run.cells[number].kept) - expected) < 1e-8 * np.linalg.norm(expected)
        for look, outputs in enumerate(alone.trajectory.train_outputs):
            assert np.allclose(run.trajectory.train_outputs[look][number], outputs[0], rtol=1e-8, atol=1e-10)
            evaluated = alone.trajectory.eval_outputs[look][0]
            assert np.allclose(run.trajectory.eval_outputs[look][number], evaluated, rtol=1e-8, atol=1e-10)


def test_a_killed_run_of_several_seeds_goes_on_with_the_same_bits(folders: dict[str, Path]):
    def trained(checkpoint: Checkpoint | None = None) -> TrainingRun:
        model, targets = together(folders["bert"], "bert", cached=True)
        cells = [cell for _, cell in CELLS]
        return train_cells(model, targets, ADAM, cells, seeds=SEEDS, checkpoint=checkpoint)

    whole, kept = trained(), Kept(stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        trained(kept)
    again = trained(kept)
    for one, other in zip(whole.cells, again.cells, strict=True):
        assert np.array_equal(flat(one.kept), flat(other.kept))


def test_a_model_has_its_own_weights_again_whatever_happens_at_another_origin(folders: dict[str, Path]):
    base, other = (scorer_of(folders["bert"], seed=seed) for seed in (0, 1))
    texts = texts_of(folders["bert"])["train"].batch([0, 1])
    before, expected = base.logits(texts), other.logits(texts)
    with pytest.raises(ZeroDivisionError), starting_from(differing_weights(base, other)):
        assert torch.equal(base.logits(texts), expected)
        raise ZeroDivisionError
    assert torch.equal(base.logits(texts), before)
    assert not torch.equal(before, expected)


def test_only_linear_modules_may_differ(folders: dict[str, Path]):
    base, other = (scorer_of(folders["bert"], seed=seed) for seed in (0, 0))
    assert differing_weights(base, other) == {}
    other.model.get_input_embeddings().weight.data += 1
    with pytest.raises(UnsupportedModelError, match="word_embeddings"):
        differing_weights(base, other)


def test_examples_of_several_origins_stand_one_after_the_other(folders: dict[str, Path]):
    texts = texts_of(folders["bert"])
    both = joined([texts["train"], texts["eval"]])
    n = len(texts["train"])
    assert torch.equal(both.batch([n + 1, n]).input_ids, texts["eval"].batch([1, 0]).input_ids)
    assert torch.equal(both.batch([2]).token_type_ids, texts["train"].batch([2]).token_type_ids)


# --- products that are the same for all cells


class Counting(nn.Linear):
    """A linear module that keeps how many rows it multiplied."""

    rows: list[int]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(inputs))
        return super().forward(inputs)


def counting() -> Counting:
    module = Counting(3, 2).double()
    module.rows = []
    return module


def test_inputs_that_are_the_same_for_all_cells_are_multiplied_once():
    module, rows = counting(), torch.randn(2, 5, 3, dtype=torch.float64)
    inputs = rows.repeat(4, 1, 1)
    with shared_products(module, 4):
        shared = module(inputs)
    assert module.rows == [2]
    assert torch.allclose(shared, module(inputs), rtol=1e-12)
    assert module.rows == [2, 8]


@pytest.mark.parametrize("differ", ["in value", "in their gradient"])
def test_inputs_that_a_cell_can_change_are_its_own(differ: str):
    module, inputs = counting(), torch.randn(2, 3, dtype=torch.float64).repeat(3, 1)
    if differ == "in value":
        inputs[-1, -1] += 1e-15
    else:
        inputs.requires_grad_()
    with shared_products(module, 3):
        outputs = module(inputs)
    assert module.rows == [6]
    if differ == "in their gradient":
        outputs[0].sum().backward()
        assert inputs.grad is not None
        assert not inputs.grad[1:].any()
