import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ntk_dist.errors import TiedWeightsError
from ntk_dist.tracked import TrackedLinear, check_groups


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
