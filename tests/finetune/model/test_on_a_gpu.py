"""Tests that need a GPU: everything that feeds a model, and all that it gives, crosses to the device and back."""

from functools import partial
from pathlib import Path

import pytest
import torch

from finetune.data.targets import kernel_outputs
from finetune.data.tokens import tokenize
from finetune.model.prefix import PrefixCache
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelDType, ModelSettings
from tests.tiny_models import ALL_TARGETS, FAMILIES, Kind, save_tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

TEXTS = ("the film was great", "a dull plot", "it was very good and the acting was not bright", "good")
FULL = partial(kernel_outputs, outputs="full")


def build(folder: Path, kind: Kind, device: str, dtype: ModelDType, *, again: bool = False) -> Scorer:
    model = ModelSettings(str(folder), dtype=dtype, device=device, checkpointing=again)  # type: ignore[arg-type]
    adapter = AdapterSettings("lora", 2, 4.0, ALL_TARGETS[kind], "random")
    return build_scorer(model, adapter, HeadSettings("random"), n_outputs=2, adapter_seed=1, head_seed=2)


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 1e-4), ("bfloat16", 0.3)])
@pytest.mark.parametrize("kind", FAMILIES)
def test_rows_and_features_are_those_of_a_processor(kind: Kind, dtype: ModelDType, limit: float, tmp_path: Path):
    save_tiny(kind, tmp_path)
    tokens = tokenize(ModelSettings(str(tmp_path)), TEXTS, template=None, max_length=32)
    batch = tokens.batch(range(4))
    there, here = (build(tmp_path, kind, device, dtype) for device in ("cuda", "cpu"))
    assert {parameter.device.type for parameter in there.model.parameters()} == {"cuda"}
    _, rows = there.rows(batch, FULL)
    _, again = build(tmp_path, kind, "cuda", dtype, again=True).rows(batch, FULL)
    for name, expected in here.rows(batch, FULL)[1].items():
        assert (rows[name] - expected).norm() <= limit * expected.norm()
        assert (again[name] - rows[name]).norm() <= limit * expected.norm()
    features, expected = there.features(batch), here.features(batch)
    assert (features - expected).norm() <= limit * expected.norm()
    cache = PrefixCache(there, 1, [name for name in there.trained if not name.startswith("0.")])
    cache.fill(tokens, batch_tokens=64)
    with cache.reading(range(4), batch):
        assert (there.features(batch) - features).norm() <= limit * expected.norm()
