"""Single weights of a divided model as a whole, and what cannot be done without all of them."""

import torch
from torch import Tensor, nn

from finetune.errors import GroupError
from finetune.sharding.weights import is_divided


@torch.no_grad()
def whole(parameter: Tensor) -> Tensor:
    """Return the value of a parameter, which all processes ask for alike where it is divided among them."""
    if not is_divided(parameter):
        return parameter
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def has_divided(model: nn.Module) -> bool:
    """Tell whether weights of a model are divided among processes."""
    return any(is_divided(parameter) for parameter in model.parameters())


def check_undivided(model: nn.Module, what: str, instead: str) -> None:
    """Check that no weight of a model is divided: where something is differentiated twice it needs all at once.

    Args:
        model: the model.
        what: what is to be done with it, for the message.
        instead: what to set instead.

    Raises:
        GroupError: it is divided.
    """
    if has_divided(model):
        raise GroupError(
            f"{what} cannot be had of a model that is divided among processes, which lets go of each layer's weights "
            f"before they are differentiated a second time; {instead}"
        )
