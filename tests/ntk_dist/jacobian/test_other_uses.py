"""Weights that a model uses otherwise than by calling modules: refused by name, or right where that adds nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ntk_dist.errors import NotRecordedError
from ntk_dist.jacobian.branches import Branch
from ntk_dist.jacobian.capture import jacobian_rows
from ntk_dist.jacobian.tracked import TrackedLinear
from tests.single_example import reference_rows, relative_error

X = torch.randn(5, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Layer(nn.Module):
    """A layer that goes on with what `use` makes of its linear module, called or not."""

    def __init__(self, use: Callable[["Layer", Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.use = use
        self.other: list[nn.Linear] = []

    def forward(self, hidden_states: Tensor) -> Tensor:
        found = self.linear(hidden_states) if self.use is None else self.use(self, hidden_states)
        return torch.tanh(found)


class Network(nn.Module):
    def __init__(self, use: Callable[[Layer, Tensor], Tensor], *, last: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([Layer(None if last else use), Layer(use if last else None)])
        self.layers[1].other = [self.layers[0].linear]
        self.head = nn.Linear(6, 2)
        self.double().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(dim=1))

    def groups(self) -> dict[str, list[TrackedLinear]]:
        named = {"0": self.layers[0].linear, "1": self.layers[1].linear, "head": self.head}
        return {name: [TrackedLinear(module, f"layer {name}", bias=True)] for name, module in named.items()}

    def rows(self, x: Tensor, *, by_layer: bool, unused: set[nn.Module] | None = None) -> dict[str, Tensor]:
        layers = list(self.layers) if by_layer else []
        return jacobian_rows(lambda: self(x), self.groups(), layers=layers, unused=unused)[1]

    def check(self, *, by_layer: bool) -> None:
        rows = self.rows(X, by_layer=by_layer)
        expected = reference_rows(lambda i: self(X[i : i + 1]), len(X), self.groups())
        assert all(relative_error(rows[name], values) < 1e-12 for name, values in expected.items())


BY_LAYER = pytest.mark.parametrize("by_layer", [False, True])

BESIDE = {
    "the weight of a called module": lambda layer, x: layer.linear(x) + functional.linear(x, layer.linear.weight),
    "its transpose": lambda layer, x: torch.tanh(layer.linear(x)) @ layer.linear.weight,
    "its norm": lambda layer, x: layer.linear(x) / layer.linear.weight.norm(),
    "its bias": lambda layer, x: layer.linear(x) - layer.linear.bias,
    "the module without its hooks": lambda layer, x: layer.linear(x) + layer.linear.forward(x),
}


@BY_LAYER
@pytest.mark.parametrize("use", BESIDE.values(), ids=BESIDE)
def test_a_weight_that_is_used_beside_the_calls_is_named(use: Callable[[Layer, Tensor], Tensor], by_layer: bool):
    with pytest.raises(NotRecordedError, match=r"layer 0 takes part in the outputs also beside being called.*tied by"):
        Network(use).rows(X, by_layer=by_layer)


@BY_LAYER
def test_a_weight_of_another_layer_is_named(by_layer: bool):
    network = Network(lambda layer, x: layer.linear(x) @ layer.other[0].weight, last=True)
    with pytest.raises(NotRecordedError, match="layer 0 takes part in the outputs also beside"):
        network.rows(X, by_layer=by_layer)


@BY_LAYER
def test_a_weight_that_is_read_only_sometimes_is_named_when_it_is(by_layer: bool):
    def use(layer: Layer, x: Tensor) -> Tensor:
        return layer.linear(x) * (layer.linear.weight.sum() if x.max() > 9 else 1)

    network, unused = Network(use), set()
    network.rows(X, by_layer=by_layer, unused=unused)
    with pytest.raises(NotRecordedError, match="layer 0 takes part in the outputs also beside"):
        network.rows(X + 20, by_layer=by_layer, unused=unused)


@BY_LAYER
@pytest.mark.parametrize(
    "use",
    [
        lambda layer, x: layer.linear(x).detach() + x,
        lambda layer, x: layer.linear(x.detach()).detach() * 2,
        lambda layer, x: x + torch.zeros_like(x).copy_(layer.linear(x).data),
    ],
)
def test_a_module_whose_output_is_detached_is_named(use: Callable[[Layer, Tensor], Tensor], by_layer: bool):
    with pytest.raises(NotRecordedError, match="layer 0 takes part in the outputs, but no gradient goes back to it"):
        Network(use).rows(X, by_layer=by_layer)


def chosen(layer: Layer, x: Tensor) -> Tensor:
    """An expert that is chosen by what the module returns; the choice has no derivative."""
    return torch.where(layer.linear(x).argmax(dim=-1, keepdim=True) < 3, x, 2 * x)


@BY_LAYER
@pytest.mark.parametrize(
    "use",
    [
        lambda layer, x: layer.linear(x) + 0 * layer.linear.weight.sum(),
        lambda layer, x: layer.linear(x) / layer.linear.weight.detach().norm(),
        lambda layer, x: layer.linear(x.to(layer.linear.weight.dtype)),
        lambda layer, x: layer.linear(layer.linear(x)),
        lambda layer, x: (layer.linear(x), x)[1],
        chosen,
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_uses_that_add_nothing_to_a_gradient_are_let_through(
    use: Callable[[Layer, Tensor], Tensor], by_layer: bool, last: bool
):
    Network(use, last=last).check(by_layer=by_layer)


class Adapted(nn.Module):
    def __init__(self, direct: bool) -> None:
        super().__init__()
        self.base, self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)
        self.direct = direct
        self.double().requires_grad_(False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(x))

    def twice(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self(x))
        return (self.forward(hidden) if self.direct else self(hidden)).mean(dim=1)

    def linear(self) -> TrackedLinear:
        return TrackedLinear(self.b, "b", adapter=True, branch=Branch(self, self.base, self.a, self.b, 1.0))


def test_an_idle_adapter_that_runs_without_its_hooks_is_named():
    adapted = Adapted(direct=False)
    groups = {"b": [adapted.linear()]}
    _, rows = jacobian_rows(lambda: adapted.twice(X), groups)
    expected = reference_rows(lambda i: adapted.twice(X[i : i + 1]), len(X), groups)
    assert relative_error(rows["b"], expected["b"]) < 1e-12
    adapted.direct = True
    with pytest.raises(NotRecordedError, match="b takes part in the outputs also beside being called"):
        jacobian_rows(lambda: adapted.twice(X), groups)


def test_a_detached_adapter_that_adds_nothing_yet_is_named():
    adapted = Adapted(direct=False)
    with pytest.raises(NotRecordedError, match="b takes part in the outputs, but no gradient goes back to it"):
        jacobian_rows(lambda: adapted(X).detach().mean(dim=1), {"b": [adapted.linear()]})
    assert not adapted.b.weight.any()


def test_parameters_are_left_as_they_were():
    network = Network(lambda layer, x: layer.linear(x).detach() + x)
    before = {name: value.clone() for name, value in network.named_parameters()}
    with pytest.raises(NotRecordedError):
        network.rows(X, by_layer=False)
    for name, value in network.named_parameters():
        assert torch.equal(value, before[name])
        assert not value.requires_grad
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
