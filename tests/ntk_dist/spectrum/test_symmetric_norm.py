"""Spectral norms of symmetric matrices from products with them, against their eigenvalues."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ntk_dist.spectrum import symmetric_norm as module
from ntk_dist.spectrum.symmetric_norm import symmetric_norm

TOLERANCE = 1.5e-8


def rotated(values: np.ndarray, seed: int = 0) -> Tensor:
    draw = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(draw.standard_normal((len(values), len(values))))
    return torch.from_numpy(Q * values @ Q.T)


def start(p: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal(p))


SPECTRA = {
    "one": np.array([-3.0]),
    "two signs": np.array([2.0, -2.0]),
    "largest below 0": np.array([*np.linspace(-1, 0.5, 40), -4.0]),
    "in pairs of both signs": np.concatenate([np.geomspace(1e-3, 1, 60), -np.geomspace(1e-3, 1, 60)]),
    "repeated": np.array([5.0] * 10 + [1.0] * 20),
    "low rank": np.array([3.0, -1.0] + [0.0] * 300),
    "decaying": np.arange(1, 400.0) ** -2,
}


@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_it_is_the_largest_magnitude_of_the_eigenvalues(values: np.ndarray, scale: float):
    H = rotated(scale * values)
    found = symmetric_norm(lambda v: H @ v, start(len(values)), tolerance=TOLERANCE)
    assert found.value == pytest.approx(np.abs(values).max() * scale, rel=1e-10)
    assert found.residual <= TOLERANCE


def test_a_zero_matrix_takes_one_product():
    calls = []
    found = symmetric_norm(lambda v: (calls.append(1), 0 * v)[1], start(30), tolerance=TOLERANCE)
    assert (found.value, found.residual, len(calls)) == (0, 0, 1)


def test_the_residual_says_where_the_iteration_was_cut(monkeypatch: pytest.MonkeyPatch):
    values = np.linspace(-1, 1, 500)
    H = rotated(values)
    monkeypatch.setattr(module, "MOST_PRODUCTS", 12)
    calls = []
    found = symmetric_norm(lambda v: (calls.append(1), H @ v)[1], start(500), tolerance=TOLERANCE)
    assert len(calls) == 12
    assert found.residual > TOLERANCE
    assert found.value < 1
    assert np.abs(np.abs(values) - found.value).min() <= found.residual * found.value


def test_a_looser_tolerance_takes_fewer_products():
    H = rotated(np.linspace(-1, 1, 500) ** 3)
    counts = []
    for tolerance in (1e-2, 1e-8):
        calls = []
        found = symmetric_norm(lambda v: (calls.append(1), H @ v)[1], start(500), tolerance=tolerance)  # noqa: B023
        assert found.residual <= tolerance
        assert found.value == pytest.approx(1, rel=tolerance)
        counts.append(len(calls))
    assert counts[0] < counts[1]
