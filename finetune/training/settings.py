"""Settings of a training run, without those of model and data: plain values, the same on disk and in memory."""

from dataclasses import dataclass
from typing import Literal

Loss = Literal["squared", "cross_entropy"]
Regularizer = Literal["l2sp", "selective", "spd", "decoupled"]
Optimizer = Literal["gradient_descent", "sgd", "adamw"]
Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training of a cell.

    The objective is (1/n) sum_i loss_i + (lambda/2n) |theta - theta_0|^2, the one of kernel ridge regression divided by
    the number n of training examples, so that learning rates do not depend on n.

    Attributes:
        loss: "squared" is half the squared distance from the coded target, summed over outputs.
        regularizer: how the weights are held near the pretrained ones; see `finetune.training.regularizers`.
        optimiser: "gradient_descent" takes all examples at every step, the other two batches.
        learning_rate: of the optimizer, before the schedule.
        steps: updates of the weights.
        batch_examples: examples that go through the model at once.
        accumulation: batches whose gradients make one step; 1 for gradient descent, which takes them all.
        schedule: how the learning rate goes on after the warm-up: "linear" and "cosine" fall to 0 at the end.
        warmup_steps: steps over which the learning rate rises from 0.
        momentum: of "sgd".
        clip_norm: norm to which the gradient of a cell is cut; None leaves it.
        patience: records without a better evaluation loss after which a cell stops, and keeps its best weights; None
            trains to the end.
        record_every: steps between two looks at all examples.
    """

    loss: Loss
    regularizer: Regularizer
    optimiser: Optimizer
    learning_rate: float
    steps: int
    batch_examples: int
    accumulation: int = 1
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    momentum: float = 0.0
    clip_norm: float | None = None
    patience: int | None = None
    record_every: int = 10


@dataclass(frozen=True)
class Cell:
    """Settings in which cells differ.

    Attributes:
        strength: its lambda, absolute.
        learning_rate: its rate after the warm-up.
    """

    strength: float
    learning_rate: float
