"""The kernel that is followed in training is the sweep's own: every kind and choice of outputs, by plain autograd."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from finetune.data.targets import kernel_outputs
from finetune.model.scorer import Scorer
from finetune.training.kernel_change import KernelChange
from ntk_dist.jacobian.batches import Batch
from ntk_dist.kernel.features import KernelKind, OutputMode
from tests.finetune.training.problems import GROUPS, scorer_of, texts_of
from tests.single_example import reference_rows
from tests.tiny_models import save_tiny

EXAMPLES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("bert", tmp_path_factory.mktemp("bert"))


def dense_kernel(rows: np.ndarray, kind: KernelKind, outputs: OutputMode) -> np.ndarray:
    """The kernel of rows (m, R, p), entry by entry."""
    m, R, _ = rows.shape
    left = np.sign(rows) if kind == "sign" else rows
    right = rows if kind == "sgd" else np.sign(rows)
    pairs = np.array([[[[left[i, a] @ right[j, b] for b in range(R)] for j in range(m)] for a in range(R)]
                      for i in range(m)])  # fmt: skip
    if outputs == "trace":
        return sum(pairs[:, a, :, a] for a in range(R)) / R
    return pairs.reshape(m * R, m * R)


def rows_of(folder: Path, moved: dict[str, torch.Tensor]) -> np.ndarray:
    """Jacobian rows (m, R, p) of the logits of the model with displaced weights, one example at a time."""
    scorer, texts = scorer_of(folder), texts_of(folder)["train"]
    groups = {group: scorer.trained[group] for group in GROUPS}
    for linears in groups.values():
        for linear in linears:
            for part, parameter in linear.named_parameters():
                parameter.data += moved.get(f"{linear.name}.{part}", 0)
    found = reference_rows(lambda i: scorer.logits(texts.batch([i])), EXAMPLES, groups)
    return torch.cat(list(found.values()), dim=2).numpy()


def test_change_and_alignment_are_those_of_the_dense_kernel(folder: Path):
    scorer = scorer_of(folder)
    groups: Any = {group: scorer.trained[group] for group in GROUPS}
    batch = texts_of(folder)["train"].batch(range(EXAMPLES))
    draw = torch.Generator().manual_seed(3)
    moved = {
        f"{linear.name}.{part}": 0.2 * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype)
        for linears in groups.values() for linear in linears for part, parameter in linear.named_parameters()
    }  # fmt: skip
    of_logits = [rows_of(folder, each) for each in ({}, moved)]
    seen = set()
    for kind, outputs in product(get_args(KernelKind), get_args(OutputMode)):
        score = partial(_outputs_of, scorer, batch, outputs)
        found = KernelChange([score], groups, groups, kind=kind, outputs=outputs)({5: moved})
        rows = [each[:, 1:] - each[:, :1] if outputs == "margin" else each for each in of_logits]
        first, last = (dense_kernel(each, kind, outputs) for each in rows)
        expected = np.linalg.norm(last - first) / np.linalg.norm(first)
        assert found["kernel_change"] == pytest.approx([expected], rel=1e-10), (kind, outputs)
        alignment = np.sum(first * last) / (np.linalg.norm(first) * np.linalg.norm(last))
        assert found["kernel_alignment"] == pytest.approx([alignment], rel=1e-10), (kind, outputs)
        seen.add(round(expected, 4))
    assert len(seen) == 9


def _outputs_of(scorer: Scorer, batch: Batch, outputs: OutputMode) -> torch.Tensor:
    return kernel_outputs(scorer.logits(batch), outputs)


def test_weights_that_are_not_finite_have_no_kernel_and_stop_nobody(folder: Path):
    scorer = scorer_of(folder)
    groups = {"head": scorer.trained["head"]}
    batch = texts_of(folder)["train"].batch(range(EXAMPLES))
    change = KernelChange([lambda: scorer.logits(batch)], groups, groups)
    names = {f"{linear.name}.{part}": p for linear in groups["head"] for part, p in linear.named_parameters()}
    wild = {name: torch.full_like(parameter, torch.inf) for name, parameter in names.items()}
    still = {name: torch.zeros_like(parameter) for name, parameter in names.items()}
    found = change({0: wild, 2: still})
    np.testing.assert_array_equal(found["kernel_change"], [np.nan, 0.0])
    np.testing.assert_allclose(found["kernel_alignment"], [np.nan, 1.0])
