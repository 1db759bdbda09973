"""Directions and scores of which there is no derivative are refused by name."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ntk_dist.errors import NonFiniteError, NtkError, TiedWeightsError
from ntk_dist.jacobian.directional import DirectionError, displaced, second_directional_derivative
from ntk_dist.jacobian.tracked import Groups
from tests.ntk_dist.jacobian.networks import draw, kept, make


def enter(score: Callable[[], Tensor], groups: Groups, direction: dict[str, Tensor]) -> None:
    with displaced(groups, direction):
        score()


@pytest.mark.parametrize("use", [second_directional_derivative, enter])
def test_a_direction_that_does_not_fit_is_refused(use):
    network, groups, x = make()
    unchanged, fitting = kept(network), draw(groups)
    lacking = {name: values for name, values in fitting.items() if name != "head"}
    wrong = {
        r"differ in \['head'\]": lacking,
        r"differ in \['other'\]": {**fitting, "other": torch.zeros(3)},
        r"group mixed must be of shape \(61,\).*not \(60,\)": {**fitting, "mixed": fitting["mixed"][1:]},
        r"group first .*not \(25, 1\)": {**fitting, "first": fitting["first"][:, None]},
        r"group empty .*\(0,\).*not \(1,\)": {**fitting, "empty": torch.zeros(1)},
    }
    for message, direction in wrong.items():
        with pytest.raises(DirectionError, match=message):
            use(lambda: network(x), groups, direction)
    with pytest.raises(TiedWeightsError):
        use(lambda: network(x), {"a": groups["first"], "b": groups["first"]}, {"a": fitting["first"]})
    assert unchanged()


@pytest.mark.parametrize(("value", "dtype"), [(torch.nan, torch.float64), (1e300, torch.float32)])
@pytest.mark.parametrize("use", [second_directional_derivative, enter])
def test_a_non_finite_direction_names_its_group(use, value, dtype):
    network, groups, x = make(dtype=dtype)
    direction = draw(groups)
    direction["mixed"][40] = value
    with pytest.raises(NonFiniteError, match="direction of group mixed is NaN or infinite"):
        use(lambda: network(x), groups, direction)


def test_a_weight_that_is_computed_from_others_is_refused():
    network, groups, x = make()
    nn.utils.parametrizations.weight_norm(network.head)
    direction = draw(groups)
    with pytest.raises(NtkError, match="head computes its weight or bias from other tensors"):
        second_directional_derivative(lambda: network(x), groups, direction)


def test_a_non_finite_score_names_its_example():
    network, groups, x = make()
    x[4, 1, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="a score is NaN or infinite for example 4"):
        second_directional_derivative(lambda: network(x), groups, draw(groups))


def test_a_non_finite_derivative_names_its_example():
    network, groups, x = make(1)

    def score() -> Tensor:
        values = network(x)
        # the square root has an infinite slope at 0
        return torch.cat([values[:5], (values[5:6] - values[5:6].detach()).abs().sqrt(), values[6:]])

    with pytest.raises(NonFiniteError, match="a directional derivative is NaN or infinite for example 5"):
        second_directional_derivative(score, groups, draw(groups))


def test_scores_must_be_a_matrix():
    network, groups, x = make()
    with pytest.raises(NtkError, match="examples, outputs"):
        second_directional_derivative(lambda: network(x).sum(dim=1), groups, draw(groups))
