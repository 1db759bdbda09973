"""Modules that compute in another way for a while: with a function in the place of their `forward`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Have modules call these functions instead of their `forward`, inside this context; hooks run as they did.

    At the end each module computes as it did before, be it by a function that an outer context gave it.

    Args:
        forwards: by module what it calls, with the arguments of its `forward`. A module that a model has in several
            places is one.
    """
    before = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            # an attribute of the instance comes before the method of its class
            vars(module)["forward"] = forward
        yield
    finally:
        for module, own in before.items():
            if own is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = own


def is_replaced(module: nn.Module) -> bool:
    """Tell whether a module computes by something else than the `forward` of its class."""
    return "forward" in vars(module)
