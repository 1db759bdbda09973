"""Texts and labels as columns hold them, checked row by row."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import EmptyTextError, LabelError


def texts_of(column: Iterable[Any], rows: NDArray[np.int64], name: str, split: str) -> list[str]:
    """The texts of the given rows.

    Raises:
        EmptyTextError: one is missing, blank or not a text; names the row.
    """
    values = list(column)
    texts = []
    for row in rows.tolist():
        text = values[row]
        if not isinstance(text, str) or not text.strip():
            raise EmptyTextError(
                f"row {row} of split {split} has no text in column {name!r} (it holds {text!r}); remove the "
                "row, or name another column"
            )
        texts.append(text)
    return texts


def integer_labels(values: Sequence[Any], split: str) -> NDArray[np.int64]:
    """Classes 0, 1, 2, ...

    Raises:
        LabelError: a label is missing, not a whole number, or negative; names row and value.
    """
    for row, value in enumerate(values):
        if not _is_number(value) or value != int(value) or value < 0:
            raise LabelError(
                f"row {row} of split {split} has label {value!r}; classes are whole numbers from 0 on. Code "
                "the labels so, set sign_cut to make classes of ratings, or choose kind: regression"
            )
    return np.array(values, dtype=np.int64)


def real_labels(values: Sequence[Any], split: str) -> NDArray[np.float64]:
    """Real numbers.

    Raises:
        LabelError: a label is missing or not finite; names row and value.
    """
    for row, value in enumerate(values):
        if not _is_number(value):
            raise LabelError(
                f"row {row} of split {split} has label {value!r}, which is not a finite number; correct or "
                "remove the row"
            )
    return np.array(values, dtype=np.float64)


def sign_labels(values: Sequence[Any], split: str, cut: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that are kept and their classes: 1 above the cut, 0 below minus the cut.

    Raises:
        LabelError: as `real_labels`.
    """
    numbers = real_labels(values, split)
    rows = np.flatnonzero(np.abs(numbers) > cut)
    return rows, (numbers[rows] > 0).astype(np.int64)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)
