"""A small network with every kind of tracked module, for tests of derivatives along directions."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from ntk_dist.jacobian.tracked import Groups, TrackedLinear

EXAMPLES = 7


class Network(nn.Module):
    """Attention, a Conv1D, a module called twice, an in-place operation on a tracked output, a head on vectors."""

    def __init__(self, n_outputs: int, power: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.shared = nn.Linear(5, 5)
        self.conv = Conv1D(6, 5)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(6, n_outputs)
        self.power = power

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden *= 2
        hidden = torch.tanh(hidden)
        hidden = functional.scaled_dot_product_attention(self.shared(hidden), hidden, hidden)
        hidden = self.power(self.shared(hidden))
        return self.head(torch.tanh(self.conv(hidden)).mean(dim=1))


def make(
    n_outputs: int = 2, power: Callable[[Tensor], Tensor] = torch.sin, dtype: torch.dtype = torch.float64
) -> tuple[Network, dict[str, list[TrackedLinear]], Tensor]:
    torch.manual_seed(0)
    network = Network(n_outputs, power).to(dtype).requires_grad_(False)
    nn.init.normal_(network.conv.weight)
    groups = {
        "first": [TrackedLinear(network.first, "first", bias=True)],
        "mixed": [TrackedLinear(network.shared, "shared"), TrackedLinear(network.conv, "conv", bias=True)],
        "bias": [TrackedLinear(network.shared, "shared", weight=False, bias=True)],
        "unused": [TrackedLinear(network.unused, "unused", bias=True)],
        "head": [TrackedLinear(network.head, "head", bias=True)],
        "empty": [],
    }
    return network, groups, torch.randn(EXAMPLES, 3, 4, dtype=dtype)


def draw(groups: Groups, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(sum(linear.n_parameters for linear in linears), dtype=torch.float64, generator=generator)
        for name, linears in groups.items()
    }


def kept(network: nn.Module) -> Callable[[], bool]:
    """Tell whether the network still holds the same parameters in the same order, bit by bit."""
    before = [(name, parameter, parameter.clone()) for name, parameter in network.named_parameters()]

    def unchanged() -> bool:
        now = list(network.named_parameters())
        return len(now) == len(before) and all(
            name == old_name and parameter is old and torch.equal(parameter, bits) and not parameter.requires_grad
            for (name, parameter), (old_name, old, bits) in zip(now, before, strict=True)
        )

    return unchanged
