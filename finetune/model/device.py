"""The device of a model: a CPU, or a GPU that supports the model's precision."""

import torch

from finetune.errors import DeviceError
from finetune.settings import ModelSettings
from ntk_dist.device.transfers import present_device


def check_device(settings: ModelSettings) -> torch.device:
    """Return the device of a model.

    Raises:
        NoDeviceError: there is no GPU; says what to set instead.
        DeviceError: the GPU does not compute in the model's precision; likewise.
    """
    device = present_device(settings.device)
    half = device.type == "cuda" and settings.dtype == "bfloat16"
    if half and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise DeviceError(
            f"dtype: bfloat16, but {torch.cuda.get_device_name()} does not compute in it: set model.dtype: float16 or "
            "float32"
        )
    return device
