"""Modules compute in another way inside a context alone, however it ends and wherever it stands."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from ntk_dist.jacobian.forwards import is_replaced, replaced_forwards

INPUT = torch.tensor([2.0])


class Scaled(nn.Module):
    """Multiplies its input by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor, *, plus: float = 0.0) -> Tensor:
        return self.factor * values + plus


def add(number: float, values: Tensor, **_: float) -> Tensor:
    return values + number


def test_modules_compute_as_before_at_the_end_and_leave_nothing_behind():
    first, second = Scaled(3), Scaled(5)
    before = [dict(vars(module)) for module in (first, second)]
    with replaced_forwards({first: partial(add, 10), second: partial(add, 20)}):
        assert (first(INPUT), second(INPUT)) == (12, 22)
        assert is_replaced(first)
    assert (first(INPUT), second(INPUT)) == (6, 10)
    assert [dict(vars(module)) for module in (first, second)] == before
    assert not is_replaced(first)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_an_error_ends_it_too(error: type[BaseException]):
    model = nn.Sequential(Scaled(3), Scaled(5))

    def fail(_: Tensor) -> Tensor:
        raise error

    with pytest.raises(error), replaced_forwards({model[0]: partial(add, 1), model[1]: fail}):
        model(INPUT)
    assert model(INPUT) == 30


def test_an_inner_context_gives_back_what_the_outer_one_gave_and_may_call_it():
    module = Scaled(3)
    with replaced_forwards({module: partial(add, 10)}):
        outer = module.forward
        with pytest.raises(ZeroDivisionError), replaced_forwards({module: lambda values: 7 * outer(values)}):
            assert module(INPUT) == 84
            _ = 1 / 0
        assert module(INPUT) == 12
    assert module(INPUT) == 6


def test_a_forward_that_a_library_has_put_there_comes_back():
    module = Scaled(3)
    theirs = partial(add, 100)
    module.forward = theirs  # type: ignore[method-assign]
    with replaced_forwards({module: partial(add, 10)}):
        assert module(INPUT) == 12
    assert module.forward is theirs


def test_a_module_in_two_places_is_replaced_once_and_comes_back_once():
    shared = Scaled(3)
    model = nn.Sequential(shared, nn.Sequential(shared))
    calls: list[float] = []

    def counted(forward: nn.Module, values: Tensor) -> Tensor:
        calls.append(float(values))
        return forward(values)

    replaced = {module: partial(counted, module.forward) for module in model.modules() if isinstance(module, Scaled)}
    with replaced_forwards(replaced | {shared: partial(counted, shared.forward)}):
        assert model(INPUT) == 18
    assert calls == [2, 6]
    assert model(INPUT) == 18
    assert calls == [2, 6]


def test_arguments_and_hooks_are_those_of_the_module():
    module, seen = Scaled(3), list[float]()
    module.register_forward_hook(lambda _module, _args, output: seen.append(float(output)))
    own = module.forward
    with replaced_forwards({module: lambda values, *, plus: own(-values, plus=plus)}):
        assert module(INPUT, plus=1.0) == -5
    assert seen == [-5]
