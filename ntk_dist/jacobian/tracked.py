"""Linear modules whose parameters are tracked, and the groups that they form.

Inside a group the parameters stand in the order of its modules; each weight in its own row-major layout (out,
in) for `torch.nn.Linear` and (in, out) for transformers' `Conv1D`, followed by the bias.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_dist.errors import NotRecordedError, TiedWeightsError
from ntk_dist.jacobian.branches import Branch


@dataclass(frozen=True, eq=False)
class TrackedLinear:
    """A linear module of which the weight, the bias or both are tracked.

    Attributes:
        module: `torch.nn.Linear` or transformers' `Conv1D`.
        name: its path in the model, for messages.
        weight: whether the weight is tracked.
        bias: whether the bias is tracked; only where the module has one.
        example_axis: axis of its input on which the examples of a batch stand, see `ntk_dist.jacobian.example_axes`;
            None where there is none, so that examples have to go through it alone.
        adapter: whether it is part of an adapter, which does nothing where it is not called.
        branch: the branch at whose end it stands, where it is LoRA's B; rows come without running that while it adds
            nothing.
    """

    module: nn.Linear | Conv1D
    name: str
    weight: bool = True
    bias: bool = False
    example_axis: int | None = 0
    adapter: bool = False
    branch: Branch | None = None

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tracked parameters, weight first."""
        return tuple(parameter for _, parameter in self.named_parameters())

    def named_parameters(self) -> Iterator[tuple[Literal["weight", "bias"], Tensor]]:
        """Yield the tracked parameters with what they are, weight first."""
        if self.weight:
            yield "weight", self.module.weight
        if self.bias and self.module.bias is not None:
            yield "bias", self.module.bias

    @property
    def n_parameters(self) -> int:
        """Number of tracked scalars, the columns that this module has in its group."""
        return sum(parameter.numel() for parameter in self.parameters)


Groups = Mapping[str, Sequence[TrackedLinear]]


def check_groups(groups: Groups) -> None:
    """Check that no parameter is tracked twice.

    Raises:
        TiedWeightsError: one parameter, or one storage under two parameters, stands in two places.
    """
    seen: dict[int, tuple[str, str]] = {}
    for group, linears in groups.items():
        for linear in linears:
            for parameter in linear.parameters:
                # parameters without storage (meta, or sharded away) share the address 0
                key = parameter.data_ptr() or id(parameter)
                if key in seen:
                    other_group, other_name = seen[key]
                    raise TiedWeightsError(
                        f"{linear.name} (group {group}) and {other_name} (group {other_group}) are tied: "
                        "they share a parameter, whose gradient would be counted twice; leave both out of the targets"
                    )
                seen[key] = (group, linear.name)


def check_alone(linears: Iterable[TrackedLinear], model: nn.Module) -> None:
    """Check that no other module of a model computes with a parameter of these.

    Raises:
        TiedWeightsError: one does, whose part of the gradient would be missing; names both.
    """
    holders: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append((name, module))
    for linear in linears:
        for parameter in linear.parameters:
            others = [name for name, module in holders.get(id(parameter), []) if module is not linear.module]
            if others:
                raise TiedWeightsError(
                    f"{linear.name} and {others[0]} are tied: they share a parameter, and rows would hold what "
                    f"{linear.name} adds to its gradient alone; leave both out of the targets"
                )


@torch.no_grad()
def check_products(linears: Iterable[TrackedLinear]) -> None:
    """Check that modules of classes derived from linear ones return the product of their input and weight alone.

    Raises:
        NotRecordedError: one does not; names it and its class.
    """
    for linear in linears:
        module = linear.module
        plain = nn.Linear if isinstance(module, nn.Linear) else Conv1D
        if type(module).forward is plain.forward:
            continue
        weight = module.weight
        size = weight.shape[1 if plain is nn.Linear else 0]
        inputs = torch.linspace(-1, 1, 2 * size, dtype=weight.dtype, device=weight.device).view(2, size)
        expected: Tensor = plain.forward(module, inputs)
        try:
            found: object = module(inputs)
        except Exception:  # these modules' own code may raise any error
            found = None
        if not isinstance(found, Tensor) or found.shape != expected.shape or not torch.allclose(found, expected):
            raise NotRecordedError(
                f"{linear.name} is a {type(module).__name__}, which returns something else than the product of its "
                "input and weight, so that its rows cannot be recorded; leave it out of the targets"
            )
