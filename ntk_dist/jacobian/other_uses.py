"""Uses of tracked parameters beside the calls of their modules, found in the graph of every pass.

Rows hold what the calls of a module add to a gradient. A model may use the same weight otherwise too: weights that are
tied by hand, a module that runs without its hooks. Inside the calls parameters require no gradient, and outside of them
they do: a gradient that arrives at one has come another way. Where there is none, looking for it costs nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ntk_dist.jacobian.tracked import TrackedLinear


class OtherUses:
    """Looks for other uses of some modules' parameters in the graphs of one pass.

    Args:
        linears: the tracked modules.
    """

    def __init__(self, linears: Sequence[TrackedLinear]) -> None:
        self._linears = list(linears)
        self._holders = [linear for linear in linears for _ in linear.parameters]
        self._found: set[TrackedLinear] = set()
        # a parameter's edge is the same as long as somebody has it
        with differentiable(self._linears):
            self._edges = [get_gradient_edge(parameter) for linear in linears for parameter in linear.parameters]

    @property
    def first(self) -> TrackedLinear | None:
        """The first module that was found to be used otherwise, in the order of the modules; None if none was."""
        return next((linear for linear in self._linears if linear in self._found), None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Let parameters require a gradient inside this context, but for the calls of their modules."""
        handles = []
        for linear in self._linears:
            parameters = linear.parameters
            handles += [
                linear.module.register_forward_pre_hook(_Switch(parameters, on=False).before),
                linear.module.register_forward_hook(_Switch(parameters, on=True).after),
            ]
        try:
            with differentiable(self._linears):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def gradients(
        self, values: Tensor, targets: Sequence[GradientEdge | Tensor], along: Tensor, *, retain_graph: bool
    ) -> Sequence[Tensor | None]:
        """Return the gradients of values, along a direction, at some places of their graph; note other uses on the way.

        Args:
            values: made while the parameters were `watched`.
            targets: the places.
            along: the direction, in the shape of the values.
            retain_graph: whether the graph is needed again.
        """
        wanted: list[Any] = [*self._edges, *targets]
        found = torch.autograd.grad(values, wanted, along, retain_graph=retain_graph, allow_unused=True)
        for linear, gradient in zip(self._holders, found, strict=False):
            if gradient is not None and linear not in self._found and bool(gradient.any()):
                self._found.add(linear)
        return found[len(self._edges) :]

    def note_use(self, linear: TrackedLinear) -> None:
        """Note that a module was found to be used otherwise."""
        self._found.add(linear)


class _Switch:
    """Hooks that let parameters require a gradient, or not."""

    def __init__(self, parameters: Sequence[Tensor], *, on: bool) -> None:
        self._parameters = parameters
        self._on = on

    def before(self, _module: nn.Module, _args: object) -> None:
        self._set()

    def after(self, _module: nn.Module, _args: object, _outputs: object) -> None:
        self._set()

    def _set(self) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(self._on)


@contextmanager
def differentiable(linears: Sequence[TrackedLinear]) -> Iterator[None]:
    """Let parameters of modules require a gradient inside this context, so that a graph shows whether it has them."""
    parameters = [parameter for linear in linears for parameter in linear.parameters]
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, required in zip(parameters, before, strict=True):
            parameter.requires_grad_(required)
