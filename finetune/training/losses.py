"""Losses of several cells at once, one for each cell and example."""

import torch
from torch import Tensor
from torch.nn import functional

from finetune.training.settings import Loss


def example_losses(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each example, (S, B).

    Args:
        loss: "squared", half the squared distance from the target, summed over outputs; "cross_entropy", that of the
            softmax, or of the sigmoid of a single output, the margin of class 1.
        outputs: (S, B, R).
        targets: (S, B, R) numbers for "squared"; (S, B) classes for "cross_entropy".
    """
    if loss == "squared":
        return 0.5 * ((outputs - targets) ** 2).sum(dim=2)
    if outputs.shape[2] == 1:
        margins = outputs[:, :, 0]
        return functional.binary_cross_entropy_with_logits(margins, targets.to(margins.dtype), reduction="none")
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


def as_targets(loss: Loss, coded: Tensor, labels: Tensor) -> Tensor:
    """Return the targets that `example_losses` takes: coded targets (n, R), or classes (n,)."""
    return coded if loss == "squared" else labels.to(torch.int64)
