"""Rows of branches that add nothing yet, which do not run for them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ntk_dist.errors import NotRecordedError
from ntk_dist.jacobian.branches import Branch
from ntk_dist.jacobian.capture import jacobian_rows
from ntk_dist.jacobian.forwards import replaced_forwards
from ntk_dist.jacobian.tracked import TrackedLinear
from tests.single_example import reference_rows, relative_error

SCALE = 2.3


class Adapted(nn.Module):
    """A linear module with a branch; `runs` counts how often that ran."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base, self.runs = base, 0
        self.a = nn.Linear(base.in_features, rank, bias=False)
        self.b = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return self.base(x) + SCALE * self.b(self.a(x))


class Network(nn.Module):
    """An adapted module that is called twice, on an input that is overwritten if `overwrites`, and another one."""

    overwrites = True

    def __init__(self, rank: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = Adapted(nn.Linear(20, 20), rank)
        self.outer = Adapted(nn.Linear(20, 4), rank)
        self.double().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.clone()
        first = self.inner(hidden)
        if self.overwrites:
            hidden.zero_()
        second = self.inner(torch.tanh(first))
        second *= 2
        return self.outer(torch.tanh(second)).mean(dim=1)

    def groups(self, *, both: bool = False) -> dict[str, list[TrackedLinear]]:
        found = {}
        for name in ("inner", "outer"):
            module = getattr(self, name)
            branch = Branch(module, module.base, module.a, module.b, SCALE)
            b = TrackedLinear(module.b, f"{name}.b", adapter=True, branch=branch)
            found[name] = [TrackedLinear(module.a, f"{name}.a", adapter=True), b] if both else [b]
        return found

    def runs(self) -> int:
        return self.inner.runs + self.outer.runs


X = torch.randn(7, 5, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def check(network: Network, groups: dict[str, list[TrackedLinear]]) -> int:
    """Check the rows against single examples; return how often branches ran for them."""
    before = network.runs()
    scores, rows = jacobian_rows(lambda: network(X), groups)
    runs = network.runs() - before
    assert torch.allclose(scores, network(X), rtol=1e-13)
    expected = reference_rows(lambda i: network(X[i : i + 1]), len(X), groups)
    for name, reference in expected.items():
        assert reference.norm() > 0
        assert relative_error(rows[name], reference) < 1e-12, name
    return runs


@pytest.mark.parametrize("rank", [3, 17])
def test_rows_are_exact_and_no_branch_runs(rank: int):
    network = Network(rank)
    groups = network.groups()
    assert check(network, groups) == 0
    assert check(network, groups) == 0
    assert network(X).isfinite().all(), "the model runs as before"
    assert not any(vars(module).get("forward") for module in network.modules())


def test_a_branch_that_has_been_given_weights_runs_from_then_on():
    network = Network()
    groups = network.groups()
    assert check(network, groups) == 0
    # every row of the others changes with it
    nn.init.normal_(network.inner.b.weight)
    assert check(network, groups) == 2
    network.inner.b.weight.zero_()
    assert check(network, groups) == 0
    network.inner.b.weight.data = torch.ones_like(network.inner.b.weight)
    assert check(network, groups) == 2


def test_branches_run_where_their_first_module_is_tracked_too():
    network = Network()
    nn.init.normal_(network.inner.b.weight)
    nn.init.normal_(network.outer.b.weight)
    network.overwrites = False
    assert check(network, network.groups(both=True)) == 3


@pytest.mark.parametrize("part", ["a", "b", "base"])
def test_branches_run_where_a_module_computes_by_another_function(part: str):
    """As stacked runs do, whose weights are not the module's own."""
    network = Network()
    groups = network.groups()
    module = getattr(network.inner, part)
    with replaced_forwards({module: lambda x: nn.functional.linear(x, module.weight) + 0.1}):
        assert check(network, groups) == 2


class Reads(nn.Module):
    def __init__(self, adapted: Adapted, run: Callable[[Adapted, Tensor], Tensor]) -> None:
        super().__init__()
        self.adapted, self.run = adapted, run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.adapted, x).mean(dim=1)


def test_an_adapter_that_is_not_called_is_refused_by_name():
    network = Network()
    reads = Reads(network.outer, lambda adapted, x: x @ adapted.base.weight.T)
    with pytest.raises(NotRecordedError, match=r"outer\.b was not called"):
        jacobian_rows(lambda: reads(X), {"outer": network.groups()["outer"]})


def test_parts_without_a_call_have_rows_of_zeros():
    network = Network()
    spare = nn.Linear(2, 2).double()
    groups = network.groups() | {"spare": [TrackedLinear(spare, "spare", bias=True)]}
    _, rows = jacobian_rows(lambda: network(X), groups)
    assert rows["spare"].shape == (7, 4, 6)
    assert not rows["spare"].any()
