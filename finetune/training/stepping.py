"""Examples and learning rate of a step: functions of the step alone, so that a killed run goes on alike."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.training.settings import TrainingSettings
from finetune.training.trainable import Displacement
from ntk_dist.jacobian.batches import length_buckets


def step_batches(
    settings: TrainingSettings, lengths: NDArray[np.integer], step: int, seed: int, at_once: int
) -> list[NDArray[np.int64]]:
    """Return the positions of the examples of one step, batch by batch.

    Gradient descent takes all examples, in batches of similar length. The other optimizers take the next examples of a
    permutation that each epoch draws anew from the seed; the last step of an epoch may have fewer.

    Args:
        settings: how batches are made.
        lengths: (n,) what the examples cost.
        step: counted from 0.
        seed: of the order.
        at_once: most examples of a batch; how a step is cut into batches changes its sums by rounding only.
    """
    n, size = len(lengths), settings.batch_size * settings.gradient_accumulation_steps
    if settings.optimizer == "gradient_descent":
        return length_buckets(lengths, batch_tokens=at_once * int(max(lengths)), batch_size=at_once)
    epoch, within = divmod(step, -(-n // size))
    chosen = np.random.default_rng([seed, 2, epoch]).permutation(n)[within * size :][:size]
    return [chosen[start : start + at_once] for start in range(0, len(chosen), at_once)]


def learning_rate(settings: TrainingSettings, step: int, most: float | None = None) -> float:
    """Return the learning rate of a step, counted from 0: a linear warm-up, then the schedule, to 0 after the last.

    Args:
        settings: how it changes.
        step: the step.
        most: the rate after the warm-up, where a cell has another than that of the settings.
    """
    rate = settings.learning_rate if most is None else most
    if step < settings.warmup_steps:
        return rate * (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    factor = {"constant": 1.0, "linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share))}
    return rate * factor[settings.lr_scheduler_type]


def make_optimizer(settings: TrainingSettings, displacements: list[Displacement]) -> torch.optim.Optimizer:
    """Return the optimizer, with one parameter group a cell."""
    groups = [{"params": list(displacement.values())} for displacement in displacements]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=0.0)
    momentum = settings.momentum if settings.optimizer == "sgd" else 0.0
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=momentum)
