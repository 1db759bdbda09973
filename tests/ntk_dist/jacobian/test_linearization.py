"""Products with the Jacobian and its transpose against its rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ntk_dist.errors import NonFiniteError, NtkError, TiedWeightsError
from ntk_dist.jacobian.capture import jacobian_rows
from ntk_dist.jacobian.linearization import Linearization
from ntk_dist.jacobian.tracked import TrackedLinear
from tests.ntk_dist.jacobian.test_directional import EXAMPLES, draw, kept, make, product
from tests.single_example import relative_error


def parts(groups: dict[str, list[TrackedLinear]], vectors: dict[str, Tensor]) -> list[Tensor]:
    """Vectors (p_g,) by group as one tensor for each parameter."""
    found = []
    for name, linears in groups.items():
        parameters = [parameter for linear in linears for parameter in linear.parameters]
        pieces = vectors[name].split([parameter.numel() for parameter in parameters])
        found += [piece.view(p.shape).to(p.dtype) for piece, p in zip(pieces, parameters, strict=True)]
    return found


@pytest.mark.parametrize("n_outputs", [1, 2, 6])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_both_products_are_those_of_the_rows_time_after_time(n_outputs: int, dtype: torch.dtype, limit: float):
    network, groups, x = make(n_outputs, dtype=dtype)
    unchanged = kept(network)
    made = Linearization(lambda: network(x), groups)
    network.double()
    expected_scores, rows = jacobian_rows(lambda: network(x.double()), groups)
    network.to(dtype)
    assert relative_error(made.scores, expected_scores) < limit
    for seed in (1, 2):
        direction = draw(groups, seed)
        weights = torch.randn(EXAMPLES, n_outputs, dtype=torch.float64)
        assert relative_error(made.times(parts(groups, direction)), product(rows, direction)) < limit
        transposed = {name: torch.einsum("br,brp->p", weights, values) for name, values in rows.items()}
        found = made.transposed_times(weights.to(dtype))
        for one, other in zip(found, parts(groups, transposed), strict=True):
            assert relative_error(one, other) < limit
        assert not any(each.requires_grad for each in found)
    assert dtype != torch.float64 or unchanged()


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_the_transpose_is_the_adjoint(seed: int):
    network, groups, x = make()
    made = Linearization(lambda: network(x), groups)
    direction = parts(groups, draw(groups, seed))
    weights = torch.randn(EXAMPLES, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    forward = (made.times(direction) * weights).sum()
    backward = sum((one * other).sum() for one, other in zip(made.transposed_times(weights), direction, strict=True))
    scale = made.times(direction).norm() * weights.norm()
    assert abs(float(forward - backward)) < 1e-13 * float(scale)


def test_scores_that_reach_nothing_tracked_have_no_derivative():
    _, groups, x = make()
    made = Linearization(lambda: x.sum(dim=1), {"unused": groups["unused"]})
    zeros = [torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)]
    assert not made.times([torch.ones_like(each) for each in zeros]).any()
    assert all(torch.equal(a, b) for a, b in zip(made.transposed_times(torch.ones(EXAMPLES, 4)), zeros, strict=True))


def test_what_fails_leaves_the_model_as_it_was():
    network, groups, x = make()
    unchanged = kept(network)
    x[3, 0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="example 3"):
        Linearization(lambda: network(x), groups)
    with pytest.raises(NtkError, match="must be"):
        Linearization(lambda: network(x).sum(dim=1), groups)
    with pytest.raises(TiedWeightsError):
        Linearization(lambda: network(x), groups | {"again": groups["head"]})
    assert unchanged()
