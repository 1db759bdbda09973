"""Modules that are suggested for adapting: those that peft would adapt, in every family."""

from pathlib import Path

import pytest

from finetune.errors import ModelLoadError
from finetune.model.suggestion import suggest, token_lengths
from finetune.settings import ModelSettings
from tests.tiny_models import Kind, save_tiny

EXPECTED: dict[Kind, tuple[str, ...]] = {
    "bert": ("query", "value"), "llama": ("q_proj", "v_proj"), "gpt2": ("c_attn",), "t5_gated": ("q", "v"),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPECTED)
def test_projections_to_queries_and_values_are_suggested(kind: Kind, tmp_path: Path):
    model = ModelSettings(str(save_tiny(kind, tmp_path)))
    found = suggest(model)
    assert found.targets == EXPECTED[kind]
    assert not set(found.targets) & set(found.others)
    assert (found.n_layers, found.room) == (2, 64)
    special = {"bert": 2, "t5_gated": 1}.get(kind, 0)
    assert token_lengths(model, ["a film", "the plot was dull"], None) == [2 + special, 4 + special]


def test_a_folder_without_a_model_is_told(tmp_path: Path):
    with pytest.raises(ModelLoadError):
        suggest(ModelSettings(str(tmp_path)))
