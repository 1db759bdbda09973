"""Random weights that depend on a seed and on the parameter's name alone, never on other draws."""

import hashlib
import math

import torch
from torch import Tensor


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for the parameter `name`, on a device, whose kind decides what numbers it gives."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


@torch.no_grad()
def draw_normal(parameter: Tensor, seed: int, name: str, *, deviation: float) -> None:
    """Fill with N(0, deviation^2)."""
    # in float32 whatever the model's precision, so that a float64 model has the same weights
    values = torch.empty(parameter.shape).normal_(0.0, deviation, generator=generator(seed, name))
    parameter.copy_(values)


@torch.no_grad()
def draw_fan_in(parameter: Tensor, seed: int, name: str) -> None:
    """Fill a matrix (out, in) with U(-1/sqrt(in), 1/sqrt(in)), as peft draws LoRA's A."""
    bound = 1 / math.sqrt(parameter.shape[1])
    values = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator(seed, name))
    parameter.copy_(values)
