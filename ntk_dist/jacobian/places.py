"""Places of tracked parameters in a model, and their temporary replacement by other tensors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from ntk_dist.errors import NtkError
from ntk_dist.jacobian.tracked import Groups, TrackedLinear


@dataclass(frozen=True, eq=False)
class Place:
    """One tracked parameter, and the name under which its module holds it."""

    module: nn.Module
    name: str
    parameter: Tensor


def places(groups: Groups) -> list[Place]:
    """Return the places of all tracked parameters, in the order of `ntk_dist.jacobian.tracked`, group after group.

    Raises:
        NtkError: a tracked parameter is computed from others.
    """
    return [
        place_of(linear, parameter)
        for linears in groups.values()
        for linear in linears
        for parameter in linear.parameters
    ]


def place_of(linear: TrackedLinear, parameter: Tensor) -> Place:
    """Return the place of a tracked module's parameter.

    Raises:
        NtkError: it is computed from others.
    """
    for name, own in linear.module._parameters.items():
        if own is parameter:
            return Place(linear.module, name, parameter)
    raise NtkError(
        f"{linear.name} computes its weight or bias from other tensors, which cannot be moved as one; leave it out "
        "of the targets"
    )


@contextmanager
def replaced(at: Sequence[Place], tensors: Sequence[Tensor]) -> Iterator[None]:
    """Put `tensors` in the place of a model's parameters inside this context, then restore the parameters.

    Whatever shares a parameter with a tracked module (a tied embedding) keeps it.
    """
    try:
        for place, tensor in zip(at, tensors, strict=True):
            # an attribute takes only a parameter, unless that is deleted first, which changes their order
            place.module._parameters[place.name] = cast(nn.Parameter, tensor)
        yield
    finally:
        for place in at:
            place.module._parameters[place.name] = cast(nn.Parameter, place.parameter)
