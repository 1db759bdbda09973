"""The example of a model and a loader of one's own: its numbers are those of plain autograd and dense solves."""

import runpy
from typing import Any

import numpy as np
import pytest
import torch

from tests.root import ROOT

EXAMPLE = ROOT / "examples/library/mathematics.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


def test_it_takes_thirty_lines_and_no_spec():
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 30
    assert not any("orchestrator" in line or "ntksweep" in line or "yaml" in line for line in lines)


def test_its_kernel_is_that_of_gradients_taken_one_example_at_a_time(example: dict[str, Any]):
    model, inputs = example["model"], example["inputs"]
    gradients = [torch.autograd.grad(model(one[None]).squeeze(), list(model.parameters())) for one in inputs]
    J = np.array([np.concatenate([part.ravel().numpy() for part in each]) for each in gradients])
    np.testing.assert_allclose(example["kernel"], J @ J.T, rtol=1e-12, atol=1e-12)


def test_its_path_and_spectrum_are_those_of_dense_solves(example: dict[str, Any]):
    K, r = example["kernel"], example["residual"]
    fits = example["path"].eval_fit(K[60:, :60])
    for strength, fit in zip(example["lambdas"], fits, strict=True):
        expected = K[60:, :60] @ np.linalg.solve(K[:60, :60] + strength * np.eye(60), r[:60])
        np.testing.assert_allclose(fit, expected, rtol=1e-8, atol=1e-9)
    values = np.linalg.eigvalsh(K[:60, :60])
    assert example["spectrum"].sigma_max == pytest.approx(values[-1], rel=1e-12)
    shares = values[values > 0] / values[values > 0].sum()
    assert example["spectrum"].effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-9)
