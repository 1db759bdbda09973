"""Where a model computes: a processor or a GPU, and whether the GPU knows the model's precision."""

import torch

from finetune.errors import DeviceError
from finetune.settings import ModelSettings


def check_device(settings: ModelSettings) -> torch.device:
    """Return the device of a model.

    Raises:
        DeviceError: there is no GPU, or it does not compute in the model's precision; says what to set instead.
    """
    if settings.device == "cuda":
        if not torch.cuda.is_available():
            why = "" if torch.version.cuda else " (this torch was built without CUDA)"
            raise DeviceError(
                f"device: cuda, but torch {torch.__version__} finds no GPU{why}: set compute.device: cpu, or run where "
                "`nvidia-smi` shows one, with a torch built for its driver"
            )
        if settings.dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise DeviceError(
                f"dtype: bfloat16, but {torch.cuda.get_device_name()} does not compute in it: set model.dtype: float16 "
                "or float32"
            )
    return torch.device(settings.device)
