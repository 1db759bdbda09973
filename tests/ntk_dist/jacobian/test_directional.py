"""First and second derivatives of scores along a direction of the weights."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ntk_dist.errors import NonFiniteError
from ntk_dist.jacobian.capture import jacobian_rows
from ntk_dist.jacobian.directional import displaced, second_directional_derivative
from ntk_dist.jacobian.tracked import Groups, TrackedLinear
from tests.dual_numbers import directional_derivative
from tests.ntk_dist.jacobian.networks import EXAMPLES, draw, kept, make
from tests.single_example import relative_error


class Cube(torch.autograd.Function):
    """x^3 with a rule for the backward pass only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


def product(rows: dict[str, Tensor], direction: dict[str, Tensor]) -> Tensor:
    return sum(rows[name].double() @ direction[name] for name in rows)


def scores_and_slope(
    score: Callable[[], Tensor], groups: Groups, direction: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The scores and first derivatives that come with the second derivative."""
    scores, first, _ = second_directional_derivative(score, groups, direction)
    return scores, first


WAYS = pytest.mark.parametrize("derive", [directional_derivative, scores_and_slope])
"""Forward mode, the reference, and reverse mode."""


@WAYS
@pytest.mark.parametrize("n_outputs", [1, 2, 6])
def test_it_is_the_product_of_the_rows_with_the_direction(derive, n_outputs):
    network, groups, x = make(n_outputs)
    direction = draw(groups)
    scores, derivative = derive(lambda: network(x), groups, direction)
    expected_scores, rows = jacobian_rows(lambda: network(x), groups)
    assert derivative.shape == scores.shape == (EXAMPLES, n_outputs)
    assert not scores.requires_grad and not derivative.requires_grad
    assert relative_error(scores, expected_scores) < 1e-13
    assert relative_error(derivative, product(rows, direction)) < 1e-13


@WAYS
def test_each_group_moves_on_its_own(derive):
    network, groups, x = make()
    direction = draw(groups)
    _, rows = jacobian_rows(lambda: network(x), groups)
    for name in groups:
        alone = {other: values * (other == name) for other, values in direction.items()}
        _, derivative = derive(lambda: network(x), groups, alone)
        assert relative_error(derivative, rows[name] @ direction[name]) < 1e-13, name


@WAYS
def test_single_precision(derive):
    network, groups, x = make(dtype=torch.float32)
    direction = draw(groups)
    scores, derivative = derive(lambda: network(x), groups, direction)
    assert scores.dtype == derivative.dtype == torch.float32
    network.double()
    _, rows = jacobian_rows(lambda: network(x.double()), groups)
    assert relative_error(derivative, product(rows, direction)) < 2e-5


def test_an_operator_without_a_forward_rule_has_both_derivatives_from_one_call():
    derivatives = []
    for power in (lambda x: x**3, Cube.apply):
        network, groups, x = make(power=power)
        calls = []
        found = second_directional_derivative(lambda: (calls.append(1), network(x))[1], groups, draw(groups))  # noqa: B023
        derivatives.append(found[1:])
        assert len(calls) == 1
    for found, expected in zip(*reversed(derivatives), strict=True):
        assert relative_error(found, expected) < 1e-13


def test_fused_attention_is_only_put_aside():
    network, groups, x = make()

    def enabled() -> tuple[bool, ...]:
        cuda = torch.backends.cuda
        return cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()

    before, inside = enabled(), []
    second_directional_derivative(lambda: (inside.append(enabled()), network(x))[1], groups, draw(groups))
    assert inside == [(False, False, True)], "a fused kernel cannot be differentiated twice"
    assert enabled() == before == (True, True, True)


@given(st.floats(-10, 10), st.floats(-10, 10), st.integers(0, 2**31), st.integers(0, 2**31))
def test_it_is_linear_in_the_direction(a, b, first_seed, second_seed):
    network, groups, x = make()
    v, w = draw(groups, first_seed), draw(groups, second_seed)
    mixture = {name: a * v[name] + b * w[name] for name in groups}
    along_v, along_w, along_both = (scores_and_slope(lambda: network(x), groups, d)[1] for d in (v, w, mixture))
    rounding = abs(a) * along_v.norm() + abs(b) * along_w.norm()
    assert (along_both - a * along_v - b * along_w).norm() <= 1e-13 * rounding


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_caller_may_have_turned_gradients_off(mode):
    network, groups, x = make()
    expected = second_directional_derivative(lambda: network(x), groups, draw(groups))
    with mode():
        direction = draw(groups)
        found = second_directional_derivative(lambda: network(x), groups, direction)
    for values, plain in zip(found, expected, strict=True):
        assert torch.equal(values, plain)
        assert values.norm() > 0


def test_parameters_that_require_a_gradient_get_none():
    network, groups, x = make()
    frozen = second_directional_derivative(lambda: network(x), groups, draw(groups))
    network.requires_grad_(True)
    for values, expected in zip(
        second_directional_derivative(lambda: network(x), groups, draw(groups)), frozen, strict=True
    ):
        assert torch.equal(values, expected)
        assert not values.requires_grad
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_scores_that_depend_on_nothing_tracked_do_not_move():
    network, groups, x = make()
    for unreached in ({"unused": groups["unused"]}, {"empty": []}, {}):
        scores, *derivatives = second_directional_derivative(lambda: network(x), unreached, draw(unreached))
        assert torch.equal(scores, network(x))
        assert not any(values.any() for values in derivatives)


@WAYS
def test_a_parameter_shared_with_an_untracked_module_moves_in_the_tracked_one_alone(derive):
    network, groups, x = make()
    network.tied = nn.Linear(4, 5, dtype=torch.float64)

    def score() -> Tensor:
        return network(x) + network.tied(x).mean(dim=(1, 2))[:, None]

    direction = draw(groups)
    network.tied.weight.data = network.first.weight.data.clone()
    _, rows = jacobian_rows(score, groups)
    network.tied.weight = network.first.weight
    assert relative_error(derive(score, groups, direction)[1], product(rows, direction)) < 1e-13


def test_parameters_are_the_same_afterwards():
    network, groups, x = make()
    unchanged, expected = kept(network), network(x)
    second_directional_derivative(lambda: network(x), groups, draw(groups))
    assert unchanged()
    assert not network(x).requires_grad
    assert torch.equal(network(x), expected)


def test_parameters_are_the_same_after_an_error():
    network, groups, x = make()
    unchanged = kept(network)

    def fail() -> Tensor:
        network(x)
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        second_directional_derivative(fail, groups, draw(groups))
    assert unchanged()
    x[0] = torch.inf
    with pytest.raises(NonFiniteError):
        second_directional_derivative(lambda: network(x), groups, draw(groups))
    assert unchanged()


def test_the_second_derivative_of_a_product_of_weights():
    first, second = (nn.Linear(3, 1, bias=False, dtype=torch.float64).requires_grad_(False) for _ in range(2))
    groups = {"both": [TrackedLinear(first, "first"), TrackedLinear(second, "second")]}
    x, v = torch.randn(EXAMPLES, 3, dtype=torch.float64), draw(groups)
    a, b = x @ v["both"][:3, None], x @ v["both"][3:, None]
    scores, slope, curvature = second_directional_derivative(lambda: first(x) * second(x), groups, v)
    assert relative_error(scores, first(x) * second(x)) < 1e-14
    assert relative_error(slope, a * second(x) + b * first(x)) < 1e-14
    assert relative_error(curvature, 2 * a * b) < 1e-14


def test_the_second_derivative_is_the_slope_of_the_first():
    network, groups, x = make()
    direction, step = draw(groups), 1e-5
    scores, first, second = second_directional_derivative(lambda: network(x), groups, direction)
    slopes = []
    for t in (-step, step):
        with displaced(groups, {name: t * values for name, values in direction.items()}):
            slopes.append(directional_derivative(lambda: network(x), groups, direction)[1])
    assert relative_error((slopes[1] - slopes[0]) / (2 * step), second) < 1e-7
    expected_scores, expected_first = directional_derivative(lambda: network(x), groups, direction)
    assert relative_error(scores, expected_scores) < 1e-13
    assert relative_error(first, expected_first) < 1e-13
    assert not any(values.requires_grad for values in (scores, first, second))


@pytest.mark.parametrize("name", ["head", "unused", "empty"])
def test_what_is_linear_has_no_second_derivative(name):
    network, groups, x = make()
    chosen = {name: groups[name]}
    _, first, second = second_directional_derivative(lambda: network(x), chosen, draw(chosen))
    assert bool(first.any()) == (name == "head")
    assert not second.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_displaced_outputs_are_those_of_changed_weights(dtype):
    network, groups, x = make(dtype=dtype)
    displacement = draw(groups)
    changed = copy.deepcopy(network)
    first, mixed, head = (
        displacement["first"].to(dtype),
        displacement["mixed"].to(dtype),
        displacement["head"].to(dtype),
    )
    changed.first.weight += first[:20].view(5, 4)
    changed.first.bias += first[20:]
    changed.shared.weight += mixed[:25].view(5, 5)
    changed.conv.weight += mixed[25:55].view(5, 6)
    changed.conv.bias += mixed[55:]
    changed.shared.bias += displacement["bias"].to(dtype)
    changed.head.weight += head[:12].view(2, 6)
    changed.head.bias += head[12:]
    with displaced(groups, displacement):
        assert torch.equal(network(x), changed(x))
        assert not torch.equal(network.unused.weight, changed.unused.weight)
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not torch.equal(network(x), changed(x))


def test_displaced_brings_back_the_exact_bits():
    network, groups, x = make(dtype=torch.float32)
    unchanged, before = kept(network), network(x)
    # so large that nothing of the weights is left in the sum
    large = {name: 1e12 * values for name, values in draw(groups).items()}
    with displaced(groups, large), displaced(groups, draw(groups, 2)):
        assert not torch.equal(network(x), before)
    assert unchanged()
    with pytest.raises(RuntimeError, match="interrupted"), displaced(groups, large):
        raise RuntimeError("interrupted")
    assert unchanged()
    assert torch.equal(network(x), before)


@WAYS
def test_rows_and_derivative_agree_at_displaced_weights(derive):
    network, groups, x = make()
    direction = draw(groups, 2)
    _, before = jacobian_rows(lambda: network(x), groups)
    with displaced(groups, draw(groups)):
        _, rows = jacobian_rows(lambda: network(x), groups)
        _, derivative = derive(lambda: network(x), groups, direction)
    assert relative_error(derivative, product(rows, direction)) < 1e-12
    assert relative_error(derivative, product(before, direction)) > 1e-3
