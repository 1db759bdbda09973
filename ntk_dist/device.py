"""The device of torch that products and decompositions are made on."""

import os

import torch

from ntk_dist.errors import NtkError


class NoDeviceError(NtkError):
    """The device that was asked for is not there."""


class LostDeviceError(NtkError):
    """A process was given a GPU, and torch cannot use it."""


def present_device(name: str) -> torch.device:
    """Return the device `name`, cpu or cuda (the process's current GPU).

    Raises:
        NoDeviceError: there is none.
        LostDeviceError: there is to be one: the GPU or the driver of this machine is at fault.
    """
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if torch.version.cuda and given.strip() not in ("", "-1", "NoDevFiles"):
            raise LostDeviceError(
                f"CUDA_VISIBLE_DEVICES={given} gives this process a GPU, and torch finds none: see whether "
                "`nvidia-smi` shows it on this machine; if not, its driver or the GPU failed"
            )
        why = "" if torch.version.cuda else ", which was built without CUDA"
        raise NoDeviceError(
            f"device: cuda, but torch {torch.__version__}{why}, finds no GPU: set compute.device: cpu, or run where "
            "there is one, with a torch that was built for it"
        )
    return device
