"""Each regularizer is the formula that it is named after."""

from collections.abc import Callable

import pytest
import torch

from finetune.training.regularizers import decay, project, pull, pull_selectively


def displacement(seed: int = 0, *, gradient: float = 1.0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in (("a", (2, 3)), ("b", (4,))):
        tensor = torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()
        tensor.grad = gradient * torch.randn(shape, generator=draw, dtype=torch.float64)
        found[name] = tensor
    return found


def gradients(of: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.grad.clone() for name, tensor in of.items()}


def test_the_pull_is_the_gradient_of_the_penalty():
    d = displacement()
    before = gradients(d)
    assert pull(d, 0.3) == 2
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in d.items()}
    penalty = 0.3 / 2 * sum((leaf**2).sum() for leaf in leaves.values())
    penalty.backward()
    for name, tensor in d.items():
        assert torch.allclose(tensor.grad, before[name] + leaves[name].grad, rtol=0, atol=1e-15)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_selective_pull_looks_at_all_parameters_together(sign: float):
    d = displacement()
    # Descent on one tensor leads back, on the other away; on both together it leads back for sign 1.
    d["a"].grad, d["b"].grad = 2 * sign * d["a"].detach(), -0.1 * sign * d["b"].detach()
    before = gradients(d)
    assert pull_selectively(d, 0.5) == (2 if sign > 0 else 0)
    for name, tensor in d.items():
        expected = before[name] + (0.5 * tensor.detach() if sign > 0 else 0)
        assert torch.allclose(tensor.grad, expected, rtol=0, atol=1e-15)


def test_at_the_pretrained_point_nothing_is_pulled_and_missing_gradients_are_zeros():
    for regularize in (pull, pull_selectively):
        d = {"a": torch.zeros(3, dtype=torch.float64, requires_grad=True)}
        assert regularize(d, 2.0) == 0
        assert torch.equal(d["a"].grad, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("regularize", [pull, pull_selectively])
def test_tensors_that_have_not_moved_are_not_counted(regularize: Callable[..., int]):
    d = displacement()
    d["b"] = torch.zeros_like(d["b"]).requires_grad_()
    d["a"].grad = d["a"].detach().clone()
    assert regularize(d, 0.5) == 1
    assert regularize(d, 0.0) == 0


def test_decay_takes_a_share_of_the_displacement_before_the_step():
    d, before = displacement(0), {name: tensor.detach() for name, tensor in displacement(1).items()}
    expected = {name: tensor.detach() - 0.1 * 0.7 * before[name] for name, tensor in d.items()}
    assert decay(d, before, 0.7, 0.1) == 2
    for name, tensor in d.items():
        assert torch.allclose(tensor.detach(), expected[name], rtol=0, atol=1e-15)


def test_projection_comes_back_to_the_sphere_only_where_descent_leads_back():
    before = {name: tensor.detach() for name, tensor in displacement(1).items()}
    d = {name: (3 * tensor).requires_grad_() for name, tensor in before.items()}
    d["a"].grad, d["b"].grad = before["a"].clone(), -before["b"]
    assert project(d, before, 1.0) == 1
    assert torch.allclose(d["a"].norm(), before["a"].norm())
    assert torch.equal(d["b"].detach(), 3 * before["b"])


def test_projection_at_half_strength_goes_half_of_the_way_and_never_moves_outwards():
    before = {"a": torch.tensor([3.0, 4.0])}
    outwards = {"a": torch.tensor([6.0, 8.0], requires_grad=True)}
    outwards["a"].grad = before["a"].clone()
    project(outwards, before, 0.5)
    assert torch.allclose(outwards["a"].detach(), torch.tensor([4.5, 6.0]))
    inwards = {"a": torch.tensor([0.3, 0.4], requires_grad=True)}
    inwards["a"].grad = before["a"].clone()
    assert project(inwards, before, 0.5) == 0
    assert torch.equal(inwards["a"].detach(), torch.tensor([0.3, 0.4]))
