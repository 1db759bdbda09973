"""The examples of a task, read and checked."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.columns import integer_labels, real_labels, sign_labels, texts_of
from finetune.errors import LabelError, MissingColumnError
from finetune.settings import TaskSettings
from finetune.source import read_split


@dataclass(frozen=True, eq=False)
class Pool:
    """N examples to draw from.

    Attributes:
        texts: their sentences.
        pairs: their second sentences, if the task has them.
        labels: (N,) int64 classes or float64 numbers.
        rows: (N,) int64 row of each in its split, since a sign cut leaves rows out.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: NDArray[np.int64] | NDArray[np.float64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class Examples:
    """Everything that a task can draw.

    Attributes:
        train: where training examples come from.
        evaluation: where evaluation examples come from; the same pool if they are held out from it.
        n_outputs: number of classes, or 1 for regression.
    """

    train: Pool
    evaluation: Pool
    n_outputs: int

    @property
    def held_out(self) -> bool:
        """Whether evaluation examples are taken from the training pool."""
        return self.evaluation is self.train

    @property
    def class_sizes(self) -> tuple[int, ...]:
        """How many training examples there are of each class; empty for regression."""
        if not np.issubdtype(self.train.labels.dtype, np.integer):
            return ()
        return tuple(np.bincount(self.train.labels, minlength=self.n_outputs).tolist())


def read_examples(task: TaskSettings, *, n_outputs: int | None = None) -> Examples:
    """Read and check both splits of a task.

    Args:
        task: what to read.
        n_outputs: number of classes; None takes the largest label plus one.

    Raises:
        DataLoadError, SplitError: no such data or split.
        MissingColumnError: a column does not exist; lists those that do.
        EmptyTextError: a row without text; names the row.
        LabelError: a label that is not a class or a number, or is outside the head; names row and value.
    """
    train = _read_pool(task, task.train_split)
    evaluation = train if task.eval_split in (None, task.train_split) else _read_pool(task, str(task.eval_split))
    if task.kind == "regression":
        return Examples(train, evaluation, 1)
    found = int(max(train.labels.max(initial=0), evaluation.labels.max(initial=0))) + 1
    classes = max(found, 2) if n_outputs is None else n_outputs
    for pool, split in ((train, task.train_split), (evaluation, task.eval_split or task.train_split)):
        outside = np.flatnonzero(pool.labels >= classes)
        if len(outside):
            raise LabelError(
                f"row {pool.rows[outside[0]]} of split {split} has label {pool.labels[outside[0]]}, outside "
                f"a head with {classes} outputs (labels 0 to {classes - 1}); raise `classes` or correct the "
                "label"
            )
    return Examples(train, evaluation, classes)


def _read_pool(task: TaskSettings, split: str) -> Pool:
    table = read_split(task, split)
    names = [task.text, task.label] + ([task.text_pair] if task.text_pair is not None else [])
    for name in names:
        if name not in table.column_names:
            raise MissingColumnError(
                f"{task.data} has no column {name!r} in split {split}; its columns are: {', '.join(table.column_names)}"
            )
    values = list(table[task.label])
    labels: NDArray[np.int64] | NDArray[np.float64]
    rows = np.arange(len(values))
    if task.kind == "regression":
        labels = real_labels(values, split)
    elif task.sign_cut is not None:
        rows, labels = sign_labels(values, split, task.sign_cut)
    else:
        labels = integer_labels(values, split)
    return Pool(
        texts=texts_of(table[task.text], rows, task.text, split),
        pairs=None if task.text_pair is None else texts_of(table[task.text_pair], rows, task.text_pair, split),
        labels=labels,
        rows=rows,
    )
