from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_dist.errors import InputLayoutError, NonFiniteError, NotRecordedError, NtkError, TiedWeightsError
from ntk_dist.jacobian.capture import jacobian_rows
from ntk_dist.jacobian.tracked import TrackedLinear
from tests.single_example import reference_rows, relative_error


class Network(nn.Module):
    """Sequences, a Conv1D, a module called twice, an in-place operation on a tracked output, a head on vectors."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.shared = nn.Linear(5, 5)
        self.conv = Conv1D(6, 5)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(6, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden *= 2
        hidden = torch.tanh(hidden)
        hidden = torch.tanh(self.shared(hidden))
        hidden = self.shared(hidden).sin_()
        return self.head(torch.tanh(self.conv(hidden)).mean(dim=1))


def make(n_outputs: int) -> tuple[Network, dict[str, list[TrackedLinear]], Tensor]:
    torch.manual_seed(0)
    network = Network(n_outputs).double().requires_grad_(False)
    nn.init.normal_(network.conv.weight)
    groups = {
        "first": [TrackedLinear(network.first, "first", bias=True)],
        "mixed": [
            TrackedLinear(network.shared, "shared"),
            TrackedLinear(network.conv, "conv", bias=True),
        ],
        "bias": [TrackedLinear(network.shared, "shared", weight=False, bias=True)],
        "unused": [TrackedLinear(network.unused, "unused", bias=True)],
        "head": [TrackedLinear(network.head, "head", bias=True)],
        "empty": [],
    }
    return network, groups, torch.randn(7, 3, 4, dtype=torch.float64)


@pytest.mark.parametrize("n_outputs", [1, 2, 6])
def test_rows_are_those_of_one_example_at_a_time(n_outputs):
    network, groups, x = make(n_outputs)
    scores, rows = jacobian_rows(lambda: network(x), groups)
    expected = reference_rows(lambda i: network(x[i : i + 1]), len(x), groups)
    assert list(rows) == list(groups)
    assert torch.equal(scores, network(x))
    assert not scores.requires_grad
    for name in groups:
        assert rows[name].shape == (7, n_outputs, sum(linear.n_parameters for linear in groups[name]))
        assert relative_error(rows[name], expected[name]) < 1e-12, name


def test_a_batch_of_one_may_flatten_its_positions():
    network, _, _ = make(2)
    flat = {"conv": [TrackedLinear(network.conv, "conv")]}
    hidden = torch.randn(3, 5, dtype=torch.float64)

    def score() -> Tensor:
        return network.head(torch.tanh(network.conv(hidden)).mean(dim=0, keepdim=True))

    _, rows = jacobian_rows(score, flat)
    assert relative_error(rows["conv"], reference_rows(lambda _: score(), 1, flat)["conv"]) < 1e-12


def test_positions_of_a_batch_may_be_flattened():
    network, _, x = make(2)
    groups = {"first": [TrackedLinear(network.first, "layer.0.first", bias=True)]}

    def score(first: int, last: int) -> Tensor:
        return network.first(x[first:last].flatten(0, 1)).view(last - first, 3, 5).mean(dim=1)

    _, rows = jacobian_rows(lambda: score(0, 7), groups)
    expected = reference_rows(lambda i: score(i, i + 1), 7, groups)
    assert relative_error(rows["first"], expected["first"]) < 1e-10


def test_a_module_without_an_axis_of_examples_is_refused():
    network, _, x = make(2)
    groups = {"first": [TrackedLinear(network.first, "layer.0.first", example_axis=None)]}
    with pytest.raises(InputLayoutError, match=r"layer\.0\.first .*batch of 7.*batching: alone"):
        jacobian_rows(lambda: network.first(x).mean(dim=1), groups)


def test_a_weight_that_is_read_without_its_module_is_refused():
    """As Mamba reads that of dt_proj: no hook sees it, and its rows were zero."""
    network, _, x = make(2)
    groups = {"first": [TrackedLinear(network.first, "layer.0.first")]}
    with pytest.raises(NotRecordedError, match=r"layer\.0\.first takes part in the outputs without being called"):
        jacobian_rows(lambda: (x @ network.first.weight.T).mean(dim=1), groups)


class Counting(nn.Module):
    """A network whose second linear module is read directly, never, or only for large inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.passes = nn.Linear(4, 2), nn.Linear(4, 2), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        scores = self.first(x)
        return scores + x @ self.second.weight.T if x.max() > 9 else scores


def test_a_module_that_is_never_called_is_looked_for_once():
    network, x, unused = Counting(), torch.randn(3, 4), set()
    groups = {name: [TrackedLinear(getattr(network, name), name)] for name in ("first", "second")}
    alone = jacobian_rows(lambda: network(x), groups)[1]
    passes = network.passes
    for _ in range(3):
        again = jacobian_rows(lambda: network(x), groups, unused=unused)[1]
        assert all(torch.equal(again[name], alone[name]) for name in groups)
    assert passes > 1
    assert network.passes == 2 * passes + 2


def test_a_module_that_was_silent_may_not_be_read_directly_by_a_later_pass():
    network, x, unused = Counting(), torch.randn(3, 4), set()
    groups = {name: [TrackedLinear(getattr(network, name), name)] for name in ("first", "second")}
    jacobian_rows(lambda: network(x), groups, unused=unused)
    with pytest.raises(NotRecordedError, match="second takes part in the outputs without being called"):
        jacobian_rows(lambda: network(x + 20), groups, unused=unused)


def test_the_caller_may_have_turned_gradients_off():
    network, groups, x = make(2)
    with torch.no_grad():
        _, rows = jacobian_rows(lambda: network(x), groups)
    assert rows["first"].norm() > 0


def test_scores_that_depend_on_nothing_tracked_have_zero_rows():
    network, groups, x = make(2)
    _, rows = jacobian_rows(lambda: network(x), {"unused": groups["unused"]})
    assert rows["unused"].shape == (7, 2, 6)
    assert not rows["unused"].any()


def test_rows_have_the_precision_of_the_scores():
    network, groups, x = make(2)
    network.float()
    _, rows = jacobian_rows(lambda: network(x.float()), groups)
    assert all(values.dtype == torch.float32 for values in rows.values())


def test_no_graph_is_retained_after_the_last_output(monkeypatch):
    network, groups, x = make(3)
    retained = []
    original = torch.autograd.grad

    def spy(*args, **kwargs):
        retained.append(kwargs["retain_graph"])
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", spy)
    jacobian_rows(lambda: network(x), groups)
    assert retained == [True, True, False]


def test_hooks_are_removed_even_after_an_error():
    network, groups, x = make(2)

    def fail() -> Tensor:
        network(x)
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        jacobian_rows(fail, groups)
    assert not any(module._forward_hooks for module in network.modules())
    assert not network(x).requires_grad


def test_a_non_finite_score_names_its_example():
    network, groups, x = make(2)
    x[4, 1, 2] = torch.nan
    told = "a score is NaN or infinite for example 4 of the batch; check its text, or use dtype "
    with pytest.raises(NonFiniteError, match=told + "float32 if"):
        jacobian_rows(lambda: network(x), groups)
    with pytest.raises(NonFiniteError, match=told + "float64 if"):
        jacobian_rows(lambda: network(x).float(), groups)


def test_a_non_finite_gradient_names_group_and_example():
    network, groups, x = make(1)

    def score() -> Tensor:
        values = network(x)
        # the square root has an infinite slope at 0
        return torch.cat([values[:5], (values[5:6] - values[5:6].detach()).abs().sqrt(), values[6:]])

    with pytest.raises(NonFiniteError, match="group first is NaN or infinite for example 5"):
        jacobian_rows(score, groups)


def test_scores_must_be_a_matrix():
    network, groups, x = make(2)
    with pytest.raises(NtkError, match="examples, outputs"):
        jacobian_rows(lambda: network(x).sum(dim=1), groups)


def test_tied_groups_are_refused():
    network, groups, x = make(2)
    with pytest.raises(TiedWeightsError):
        jacobian_rows(lambda: network(x), {"a": groups["first"], "b": groups["first"]})


def test_an_input_that_is_overwritten_is_noticed():
    network, groups, x = make(2)

    def score() -> Tensor:
        hidden = x.clone()
        outputs = network.first(hidden)
        hidden += 1
        return outputs.mean(dim=1)

    with pytest.raises(NtkError, match="changes the input of first in place"):
        jacobian_rows(score, {"first": groups["first"]})


class Hidden(torch.autograd.Function):
    """Runs a module out of sight, and goes backward by a rule of its own."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, module: nn.Module) -> Tensor:
        return module(inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def test_a_module_that_is_called_out_of_sight_is_named():
    seen, hidden = nn.Linear(4, 2), nn.Linear(2, 2)
    inputs = torch.randn(3, 4)
    groups = {"a": [TrackedLinear(seen, "seen")], "b": [TrackedLinear(hidden, "hidden")]}
    with pytest.raises(NotRecordedError, match="hidden runs only where the model has turned gradients off"):
        jacobian_rows(lambda: Hidden.apply(seen(inputs), hidden), groups)
