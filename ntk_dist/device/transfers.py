"""The torch device for products and decompositions, and transfers to it and back."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

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
        LostDeviceError: this process was given a GPU that torch does not find: the GPU or its driver is at fault.
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
    """Return values on a device; the host does not wait for the copy."""
    pinned = values.pin_memory() if device.type == "cuda" and values.device.type == "cpu" else values
    return pinned.to(device, non_blocking=True)


class Arriving:
    """Tensors that are being copied from one device to the host, while both go on with other work.

    Args:
        tensors: by name; what is on the host stays what it is.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        # kept until they have arrived: the device would reuse freed memory for its next results
        self._leaving = tensors
        away = next((values.device for values in tensors.values() if values.device.type != "cpu"), None)
        if away is None:
            self._arrived, self._copies = None, dict(tensors)
            return
        module, stream = torch.get_device_module(away), _copying_stream(away)
        stream.wait_stream(module.current_stream(away))
        with module.stream(stream):
            # copies that do not block end in pinned memory
            self._copies = {name: values.to("cpu", non_blocking=True) for name, values in tensors.items()}
        self._arrived = module.Event()
        self._arrived.record(stream)

    @property
    def there(self) -> bool:
        """True if the tensors were on the host from the start."""
        return self._arrived is None

    def wait(self) -> dict[str, Tensor]:
        """Return the tensors on the host, once all are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        self._leaving = {}
        return self._copies


@cache
def _copying_stream(device: torch.device) -> Any:
    """Return the stream of a device for copies to the host, which run beside its computations."""
    return torch.get_device_module(device).Stream(device)
