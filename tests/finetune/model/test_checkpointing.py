"""Running layers again gives the rows of a plain pass, from fewer activations."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune.data.targets import kernel_outputs
from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from tests.tiny_models import ALL_TARGETS, FAMILIES, KINDS, Kind, save_tiny

TEXTS = ("the film was great", "a dull plot", "it was very good and the acting was not bright", "bad bad story", "good")
FULL = partial(kernel_outputs, outputs="full")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind), layers=3) for kind in KINDS}


def build(folder: Path, adapter: AdapterSettings, *, again: bool, dtype: str = "float64", **options: Any) -> Scorer:
    model = ModelSettings(str(folder), dtype=dtype, checkpointing=again)  # type: ignore[arg-type]
    asked: dict[str, Any] = {"n_outputs": 3, "adapter_seed": 1, "head_seed": 2} | options
    return build_scorer(model, adapter, HeadSettings("random"), **asked)


def tokens_of(folder: Path) -> TokenizedTexts:
    return tokenize(ModelSettings(str(folder)), TEXTS, template=None, max_length=32)


def assert_same_rows(folder: Path, adapter: AdapterSettings, **options: Any) -> None:
    batch = tokens_of(folder).batch(range(len(TEXTS)))
    (scores, plain), (again_scores, again) = (
        build(folder, adapter, again=again, **options).rows(batch, FULL) for again in (False, True)
    )
    assert torch.equal(scores, again_scores)
    assert list(plain) == list(again)
    assert any(values.any() for values in plain.values())
    for name, values in plain.items():
        assert (values - again[name]).norm() <= 1e-12 * values.norm(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_rows_of_all_modules_are_the_same(folders: dict[str, Path], kind: Kind, adapter: str):
    assert_same_rows(folders[kind], AdapterSettings(adapter, 2, 5.0, ALL_TARGETS[kind], "random"))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", FAMILIES)
def test_rows_of_some_layers_are_the_same(folders: dict[str, Path], kind: Kind):
    """Layers below the lowest tracked one keep no graph, those above the highest pass gradients on."""
    adapter = AdapterSettings("lora", 2, 5.0, ALL_TARGETS[kind][:1], "random")
    for number in range(3):
        assert_same_rows(folders[kind], adapter, groups=[f"{number}.{ALL_TARGETS[kind][0]}"])
    assert_same_rows(folders[kind], adapter, groups=["head"])


@pytest.mark.parametrize("kind", FAMILIES)
def test_single_precision_has_the_same_rows_bit_for_bit(folders: dict[str, Path], kind: Kind):
    adapter = AdapterSettings("lora", 2, 5.0, ALL_TARGETS[kind])
    batch = tokens_of(folders[kind]).batch([0, 1, 2])
    (_, plain), (_, again) = (
        build(folders[kind], adapter, again=again, dtype="float32").rows(batch, FULL) for again in (False, True)
    )
    assert all(torch.equal(values, again[name]) for name, values in plain.items())


def test_label_words_are_scored_with_layers_run_again(folders: dict[str, Path], tmp_path: Path):
    head = HeadSettings("label_words", in_kernel=False, words=("bad", "great"))
    batch = tokens_of(folders["gemma2"]).batch([0, 1])
    adapter = AdapterSettings("lora", 2, 5.0, ("q_proj",))
    plain, again = (
        build_scorer(
            ModelSettings(str(folders["gemma2"]), dtype="float64", checkpointing=checkpointing),
            adapter, head, n_outputs=2, adapter_seed=0, head_seed=0,
        ).rows(batch, FULL)[1]
        for checkpointing in (False, True)
    )  # fmt: skip
    assert all(torch.allclose(values, again[name], rtol=1e-12) for name, values in plain.items())


@pytest.mark.parametrize("kind", FAMILIES)
def test_layers_are_left_as_they_were(folders: dict[str, Path], kind: Kind):
    scorer = build(folders[kind], AdapterSettings("lora", 2, 5.0, ALL_TARGETS[kind]), again=True)
    before = [dict(vars(module)) for module in scorer.model.modules()]
    scorer.rows(tokens_of(folders[kind]).batch([0, 1]), FULL)
    assert all(dict(vars(module)) == kept for module, kept in zip(scorer.model.modules(), before, strict=True))
    assert not any(module._forward_hooks for module in scorer.model.modules() if module is not scorer.final)


class Kept:
    """Bytes of the distinct storages that graphs keep for going backward, weights left out."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._alive: dict[int, list[int]] = {}
        self.peak = 0

    def pack(self, tensor: Tensor) -> "Packed":
        return Packed(tensor, self)

    def hold(self, storage: torch.UntypedStorage) -> None:
        if storage.data_ptr() not in self._weights:
            count, size = self._alive.get(storage.data_ptr(), [0, 0])
            self._alive[storage.data_ptr()] = [count + 1, max(size, storage.nbytes())]
            self.peak = max(self.peak, sum(size for _, size in self._alive.values()))

    def release(self, address: int) -> None:
        if address in self._alive:
            self._alive[address][0] -= 1
            if self._alive[address][0] == 0:
                del self._alive[address]


class Packed:
    """A tensor that a graph keeps."""

    def __init__(self, tensor: Tensor, kept: Kept) -> None:
        self.tensor = tensor
        kept.hold(tensor.untyped_storage())
        weakref.finalize(self, kept.release, tensor.untyped_storage().data_ptr())


@contextmanager
def watched(model: torch.nn.Module) -> Iterator[Kept]:
    kept = Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda packed: packed.tensor):
        yield kept


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_graphs_keep_the_activations_of_one_layer(kind: Kind, tmp_path: Path):
    peaks = {}
    for layers in (3, 12):
        folder = save_tiny(kind, tmp_path / str(layers), layers=layers)
        for again in (False, True):
            scorer = build(folder, AdapterSettings("lora", 2, 5.0, ALL_TARGETS[kind]), again=again)
            batch = tokens_of(folder).batch([2] * 8)
            with watched(scorer.model) as kept:
                scorer.rows(batch, FULL)
            peaks[layers, again] = kept.peak
    assert peaks[12, False] > 3 * peaks[3, False]
    assert peaks[12, True] < 1.1 * peaks[3, True]
    assert peaks[12, True] < peaks[12, False] / 8
