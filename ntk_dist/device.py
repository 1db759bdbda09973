"""The device of torch that products and decompositions are made on."""

import torch

from ntk_dist.errors import NtkError


class NoDeviceError(NtkError):
    """The device that was asked for is not there."""


def present_device(name: str) -> torch.device:
    """Return the device `name`, cpu or cuda (the process's current GPU). Raises NoDeviceError if there is none."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        why = "" if torch.version.cuda else ", which was built without CUDA"
        raise NoDeviceError(
            f"device: cuda, but torch {torch.__version__}{why}, finds no GPU: set compute.device: cpu, or run where "
            "there is one, with a torch that was built for it"
        )
    return device
