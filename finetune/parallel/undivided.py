"""Refusal of tasks that need a model's weights undivided."""

from torch import nn

from finetune.errors import GroupError
from finetune.parallel.weights import has_divided


def check_undivided(model: nn.Module, what: str, instead: str) -> None:
    """Check that no weight of a model is divided: differentiating twice needs all weights at once.

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
