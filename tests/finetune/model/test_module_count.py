"""A configuration that describes more modules than can be looked at."""

import pytest
from torch import nn
from transformers import AutoConfig

from finetune.errors import ModelLoadError
from finetune.model import module_count
from finetune.model.loading import empty_model
from finetune.settings import ModelSettings

SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 50, "pad_token_id": 0}


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_model_of_too_many_modules_is_refused_before_all_are_made(
    family: str, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    AutoConfig.for_model(family, num_hidden_layers=4, **SIZES).save_pretrained(tmp_path)
    settings = ModelSettings(path=str(tmp_path), weights="random")
    model = empty_model(settings, n_outputs=2, language_model=False)
    count = len(list(model.modules())) - 1
    monkeypatch.setattr(module_count, "MOST_MODULES", count)
    assert empty_model(settings, n_outputs=2, language_model=False) is not None
    monkeypatch.setattr(module_count, "MOST_MODULES", count - 1)
    with pytest.raises(ModelLoadError, match=r"more than .* modules \(num_hidden_layers: 4\)"):
        empty_model(settings, n_outputs=2, language_model=False)
    monkeypatch.setattr(module_count, "MOST_MODULES", 1)
    nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))  # nobody counts any more
