"""The device of torch that products and decompositions are made on, and the way back from it."""

import os
from collections.abc import Mapping

import torch
from torch import Tensor

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


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Return values of the host on a device; the host goes on while they travel."""
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True)


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of one device on the host, which waits for all of their copies once."""
    # Copies that do not block end in pinned memory, and may be on their way when `to` returns.
    copies = {name: values.to("cpu", non_blocking=True) for name, values in tensors.items()}
    for values in tensors.values():
        if values.device.type != "cpu":
            torch.get_device_module(values.device).current_stream(values.device).synchronize()
            break
    return copies
