"""Spectral norms of Hessians, against the eigenvalues of dense ones."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ntk_dist.errors import NonFiniteError
from ntk_dist.jacobian.tracked import TrackedLinear
from ntk_dist.spectrum.hessian_norms import hessian_norms
from tests.dense_hessian import dense_hessian
from tests.ntk_dist.jacobian.networks import EXAMPLES, kept, make


def parameters_of(groups: dict[str, list[TrackedLinear]]) -> list[Tensor]:
    return [parameter for linears in groups.values() for linear in linears for parameter in linear.parameters]


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_each_norm_is_that_of_the_dense_hessian(n_outputs: int):
    network, groups, x = make(n_outputs)
    norms, residuals = hessian_norms(lambda: network(x), groups, seed=0)
    assert norms.shape == residuals.shape == (EXAMPLES, n_outputs)
    assert (residuals <= 1.5e-8).all()
    for example, output in np.ndindex(norms.shape):
        H = dense_hessian(lambda: network(x)[example, output], parameters_of(groups))  # noqa: B023
        assert norms[example, output] == pytest.approx(np.abs(np.linalg.eigvalsh(H)).max(), rel=1e-10)


def test_single_precision():
    network, groups, x = make(2, dtype=torch.float32)
    norms, residuals = hessian_norms(lambda: network(x), groups, seed=0)
    assert (residuals <= 3.5e-4).all()
    network.double()
    expected, _ = hessian_norms(lambda: network(x.double()), groups, seed=0)
    np.testing.assert_allclose(norms, expected, rtol=2e-5)


@pytest.mark.parametrize("name", ["head", "unused", "empty"])
def test_what_is_linear_has_the_norm_0(name: str):
    network, groups, x = make()
    norms, residuals = hessian_norms(lambda: network(x), {name: groups[name]}, seed=0)
    assert not norms.any()
    assert not residuals.any()


def test_the_norm_of_a_product_of_two_weights():
    first, second = (nn.Linear(1, 1, bias=False, dtype=torch.float64).requires_grad_(False) for _ in range(2))
    groups = {"both": [TrackedLinear(first, "first"), TrackedLinear(second, "second")]}
    x = torch.tensor([[3.0]], dtype=torch.float64)
    # a b x^2 has the Hessian [[0, x^2], [x^2, 0]]
    norms, _ = hessian_norms(lambda: first(x) * second(x), groups, seed=0)
    assert norms == pytest.approx(np.array([[9.0]]), rel=1e-14)


def test_the_caller_may_have_turned_gradients_off_and_finds_its_parameters_again():
    network, groups, x = make()
    unchanged = kept(network)
    expected, _ = hessian_norms(lambda: network(x), groups, seed=0)
    with torch.inference_mode():
        found, _ = hessian_norms(lambda: network(x), groups, seed=0)
    assert np.array_equal(found, expected)
    assert unchanged()


def test_what_is_not_finite_is_an_error():
    network, groups, x = make()
    x[0] = torch.inf
    with pytest.raises(NonFiniteError):
        hessian_norms(lambda: network(x), groups, seed=0)
