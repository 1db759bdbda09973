"""The curvature on the way is that of the second derivative, and bounds what linearization leaves out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.model.scorer import Scorer
from finetune.training.smoothness import smoothness
from finetune.training.stacked import displaced_stack
from ntk_dist.jacobian.tracked import TrackedLinear
from tests.finetune.training.problems import GROUPS, scorer_of, stacked_of, texts_of
from tests.tiny_models import save_tiny


def trained_of(scorer: Scorer) -> dict[str, list[TrackedLinear]]:
    return {group: scorer.trained[group] for group in GROUPS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("bert", tmp_path_factory.mktemp("bert"))


def test_curvature_and_error_are_those_of_the_outputs_along_the_segment(folder: Path):
    scorer = scorer_of(folder)
    model = stacked_of(folder, scorer)
    (displacement,) = model.displacements
    draw = torch.Generator().manual_seed(3)
    for tensor in displacement.values():
        tensor.data.normal_(0, 0.02, generator=draw)
    batch = texts_of(folder)["train"].batch([0, 3, 4])
    found = smoothness(lambda: scorer.logits(batch), trained_of(scorer), displacement)

    def outputs(t: float) -> np.ndarray:
        part = {name: t * tensor.detach() for name, tensor in displacement.items()}
        with torch.no_grad(), displaced_stack(model.linears, [part]):
            return scorer.logits(batch).numpy().ravel()

    # Central differences stand for the derivatives here, in the test alone.
    h = 1e-3
    second = [(outputs(t + h) - 2 * outputs(t) + outputs(t - h)) / h**2 for t in (0.0, 0.5, 1.0)]
    squared = sum(float((tensor.detach() ** 2).sum()) for tensor in displacement.values())
    assert found.curvature == pytest.approx(max(map(np.linalg.norm, second)) / squared, rel=1e-4)
    slope = (outputs(h) - outputs(-h)) / (2 * h)
    error = np.linalg.norm(outputs(1) - outputs(0) - slope)
    assert found.linearization_error == pytest.approx(error, rel=1e-4)
    dense = max(
        np.linalg.norm((outputs(t + h) - 2 * outputs(t) + outputs(t - h)) / h**2) for t in np.linspace(0, 1, 41)
    )
    assert found.linearization_error <= dense / 2


def test_where_nothing_moved_there_is_no_curvature(folder: Path):
    scorer = scorer_of(folder)
    (displacement,) = stacked_of(folder, scorer).displacements
    batch = texts_of(folder)["train"].batch([0, 1])
    found = smoothness(lambda: scorer.logits(batch), trained_of(scorer), displacement)
    assert np.isnan(found.curvature)
    assert found.linearization_error == pytest.approx(0, abs=1e-12)
