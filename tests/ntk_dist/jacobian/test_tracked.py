import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ntk_dist.errors import NotRecordedError, TiedWeightsError
from ntk_dist.jacobian.tracked import TrackedLinear, check_alone, check_groups, check_products


def test_parameters_are_counted_as_tracked():
    linear = nn.Linear(3, 5)
    assert TrackedLinear(linear, "a").n_parameters == 15
    assert TrackedLinear(linear, "a", bias=True).n_parameters == 20
    assert TrackedLinear(linear, "a", weight=False, bias=True).n_parameters == 5
    assert TrackedLinear(Conv1D(5, 3), "a", bias=True).n_parameters == 20
    assert TrackedLinear(nn.Linear(3, 5, bias=False), "a", bias=True).n_parameters == 15


def test_a_parameter_in_two_groups_is_named():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    groups = {"0.query": [TrackedLinear(first, "layer.0.query")], "1.query": [TrackedLinear(second, "layer.1.query")]}
    with pytest.raises(TiedWeightsError, match=r"layer\.1\.query \(group 1\.query\) and layer\.0\.query"):
        check_groups(groups)


def test_two_parameters_on_one_storage_are_tied():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = nn.Parameter(first.weight.data)
    with pytest.raises(TiedWeightsError):
        check_groups({"a": [TrackedLinear(first, "a")], "b": [TrackedLinear(second, "b")]})


def test_a_parameter_twice_in_one_group_is_tied():
    linear = nn.Linear(3, 3)
    with pytest.raises(TiedWeightsError):
        check_groups({"a": [TrackedLinear(linear, "a"), TrackedLinear(linear, "b")]})


def test_shared_weights_of_which_one_is_not_tracked_are_no_tie():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    check_groups({"a": [TrackedLinear(first, "a")], "b": [TrackedLinear(second, "b", weight=False, bias=True)]})


def test_parameters_without_storage_are_told_apart():
    with torch.device("meta"):
        modules = [nn.Linear(3, 3), nn.Linear(3, 3)]
    check_groups({str(i): [TrackedLinear(module, str(i), bias=True)] for i, module in enumerate(modules)})


def test_a_parameter_of_a_module_that_is_not_tracked_too_is_named():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 3)})
    model["c"].weight = model["a"].weight
    check_alone([TrackedLinear(model["b"], "b", bias=True)], model)
    # one module under two names is one module
    model["d"] = model["b"]
    check_alone([TrackedLinear(model["b"], "b", bias=True)], model)
    with pytest.raises(TiedWeightsError, match="a and c are tied"):
        check_alone([TrackedLinear(model["a"], "a")], model)


class Scaled(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(inputs)


class Written(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.weight.T + self.bias


class Pair(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return super().forward(inputs), inputs


@pytest.mark.parametrize("kind", [Scaled, Pair])
def test_a_linear_module_that_is_more_than_a_product_is_named(kind: type[nn.Linear]):
    check_products(
        [TrackedLinear(Written(3, 5), "a"), TrackedLinear(Conv1D(5, 3), "b"), TrackedLinear(nn.Linear(3, 5), "c")]
    )
    with pytest.raises(NotRecordedError, match=f"router is a {kind.__name__}, which returns something else"):
        check_products([TrackedLinear(kind(3, 5), "router")])
