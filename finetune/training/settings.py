"""Settings of a training run, without those of model and data: plain values, the same on disk and in memory."""

from dataclasses import dataclass
from typing import Literal

Loss = Literal["squared", "cross_entropy"]
Regularizer = Literal["l2sp", "selective", "spd", "decoupled"]
Optimizer = Literal["gradient_descent", "sgd", "adamw"]
SchedulerType = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training of a cell.

    The objective is (1/n) sum_i loss_i + (lambda/2n) |theta - theta_0|^2, the one of kernel ridge regression divided by
    the number n of training examples, so that learning rates do not depend on n.

    Attributes:
        loss: "squared" is half the squared distance from the coded target, summed over outputs.
        regularizer: how the weights are held near the pretrained ones; see `finetune.training.regularizers`.
        optimizer: "gradient_descent" takes all examples at every step, the other two batches.
        learning_rate: of the optimizer, before warm-up and decay.
        steps: updates of the weights.
        batch_size: examples that go through the model at once.
        gradient_accumulation_steps: batches whose gradients make one step; 1 for gradient descent, which takes
            them all.
        lr_scheduler_type: how the learning rate goes on after the warm-up: "linear" and "cosine" fall to 0 at the end.
        warmup_steps: steps over which the learning rate rises from 0.
        momentum: of "sgd".
        max_grad_norm: norm to which the gradient of a cell is cut; None leaves it.
        early_stopping_patience: evaluations without a better loss on evaluation examples after which a cell stops and
            keeps its best weights; None trains to the end.
        eval_steps: steps between two evaluations on all examples.
    """

    loss: Loss
    regularizer: Regularizer
    optimizer: Optimizer
    learning_rate: float
    steps: int
    batch_size: int
    gradient_accumulation_steps: int = 1
    lr_scheduler_type: SchedulerType = "constant"
    warmup_steps: int = 0
    momentum: float = 0.0
    max_grad_norm: float | None = None
    early_stopping_patience: int | None = None
    eval_steps: int = 10


@dataclass(frozen=True)
class Cell:
    """Settings in which cells differ.

    Attributes:
        strength: its lambda, absolute.
        learning_rate: its rate after the warm-up.
    """

    strength: float
    learning_rate: float
