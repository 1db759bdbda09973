"""The model outputs that the kernel belongs to, and their target values."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.errors import LabelError, OutputModeError
from finetune.settings import TaskKind
from ntk_dist.kernel.features import OutputMode

if TYPE_CHECKING:
    from torch import Tensor


def rows_per_example(n_outputs: int, outputs: OutputMode) -> int:
    """Jacobian rows R of an example: C for "full" and "trace", 1 for "margin".

    Raises:
        OutputModeError: a margin of other than two outputs.
    """
    if outputs != "margin":
        return n_outputs
    if n_outputs != 2:
        raise OutputModeError(
            f"margin is the difference of two logits, but the model has {n_outputs}; use full or trace"
        )
    return 1


def kernel_outputs(logits: "Tensor", outputs: OutputMode) -> "Tensor":
    """The outputs (B, R) that are differentiated: the logits (B, C), or logit 1 minus logit 0 (B, 1).

    Raises:
        OutputModeError: as `rows_per_example`.
    """
    rows_per_example(logits.shape[1], outputs)
    return logits[:, 1:] - logits[:, :1] if outputs == "margin" else logits


def arrange(values: ArrayLike, outputs: OutputMode) -> NDArray[np.float64]:
    """Values (n, R) of the kernel outputs as the right-hand sides (M, k) of kernel regression.

    "full": (nC, 1), row = example * C + output; "trace": (n, C); "margin": (n, 1).
    """
    array = np.asarray(values, dtype=np.float64)
    return array.reshape(-1, 1) if outputs == "full" else array


def changes_of_outputs(changes: ArrayLike, outputs: OutputMode) -> NDArray[np.float64]:
    """Changes (..., C) of an example's logits as those of its kernel outputs, (..., R, k), R rows with k targets each.

    "full": (..., C, 1); "trace": (..., 1, C); "margin": (..., 1, 1), logit 1 minus logit 0.
    """
    array = np.asarray(changes, dtype=np.float64)
    if outputs == "margin":
        return (array[..., 1:] - array[..., :1])[..., None]
    return array[..., :, None] if outputs == "full" else array[..., None, :]


def code_targets(labels: ArrayLike, *, kind: TaskKind, n_outputs: int, outputs: OutputMode) -> NDArray[np.float64]:
    """Return the targets of kernel regression, (M, k), in the layout of `arrange`.

    Regression: the label itself. Classification: +1 for the class and -1/(C-1) for the others, so that
    targets sum to zero over outputs; the margin is ±1, +1 for class 1.

    Args:
        labels: (n,) classes 0..C-1, or real numbers.
        kind: what the labels are.
        n_outputs: number of outputs C.
        outputs: the kernel's outputs.

    Raises:
        LabelError: a class outside 0..C-1; names the position.
        OutputModeError: as `rows_per_example`, or a regression on other than one output.
    """
    values = np.asarray(labels)
    rows_per_example(n_outputs, outputs)
    if kind == "regression":
        if n_outputs != 1:
            raise OutputModeError(f"regression has one output, not {n_outputs}")
        return arrange(values[:, None], outputs)
    if n_outputs < 2:
        raise OutputModeError(f"classification needs two outputs or more, not {n_outputs}")
    outside = np.flatnonzero((values < 0) | (values >= n_outputs))
    if len(outside):
        raise LabelError(
            f"example {outside[0]} has label {values[outside[0]]}, but the head has {n_outputs} outputs; "
            "set the number of classes, or correct the labels"
        )
    if outputs == "margin":
        return np.where(values == 1, 1.0, -1.0)[:, None]
    return arrange(np.where(np.arange(n_outputs) == values[:, None], 1.0, -1 / (n_outputs - 1)), outputs)


def logit_targets(labels: ArrayLike, *, kind: TaskKind, n_outputs: int, outputs: OutputMode) -> NDArray[np.float64]:
    """Return logits (n, C) whose kernel outputs are the coded targets; heads are fitted to them.

    For the margin they are ±1/2, so that their difference is the target ±1.

    Args and errors: as `code_targets`.
    """
    if outputs != "margin":
        return code_targets(labels, kind=kind, n_outputs=n_outputs, outputs="trace")
    margins = code_targets(labels, kind=kind, n_outputs=n_outputs, outputs=outputs)
    return np.concatenate([-margins, margins], axis=1) / 2
