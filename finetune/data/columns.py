"""Texts and labels of columns, checked row by row."""

import math
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.label_names import MISSING, name_of, written
from finetune.data.reading.numerals import number_of
from finetune.errors import EmptyTextError, LabelError, TextError

LARGEST_CLASS = 2**31 - 1

Place = Callable[[int], str]
"""Gives the place of a row for messages, for example "data.csv, line 5: row 3 of split train"."""

MOST_LISTED = 20
"""Labels up to which a message lists all of them."""


def texts_of(column: list[Any], rows: NDArray[np.int64], name: str, place: Place) -> list[str]:
    """Return the texts of the given rows.

    Raises:
        EmptyTextError: one is missing, blank or not a text; names the row.
        TextError: one has a character that cannot be written in UTF-8; names the row.
    """
    texts = []
    for row in rows.tolist():
        text = column[row]
        if not isinstance(text, str) or not text.strip():
            how = "remove the row, name another column, or leave such rows out with task.skip_blank_texts: true"
            if isinstance(text, int | float) and not isinstance(text, bool):
                how = "a number: write it as a text, or name another column"
            count = sum(not isinstance(column[each], str) or not column[each].strip() for each in rows.tolist())
            others = f"; {count} such rows" if count > 1 else ""
            raise EmptyTextError(f"{place(row)} has no text in column {name!r} (it holds {_held(text)}{others}); {how}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TextError(
                f"{place(row)} has half of a surrogate pair, {text[error.start]!a}, at position {error.start + 1} of "
                f"its text in column {name!r}, which is no character; correct or remove it"
            ) from error
        texts.append(text)
    return texts


def rows_with_text(columns: Sequence[list[Any]], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of some rows whose texts in all columns are there and not blank."""
    kept = [row for row in rows.tolist() if all(name_of(column[row]) != MISSING for column in columns)]
    return np.array(kept, dtype=np.int64)


def integer_labels(values: Iterable[Any], place: Place) -> NDArray[np.int64]:
    """Return the labels as classes 0, 1, 2, ...

    Raises:
        LabelError: a label is missing, not a whole number, negative, or too large for a class; names row and value.
    """
    values = list(values)
    labels = []
    for row, value in enumerate(values):
        _check_there(value, place(row))
        number = number_in(value)
        if number is None or number != int(number) or number < 0:
            raise LabelError(
                f"{place(row)} has label {shown(value)}; classes are whole numbers from 0 on. {_how_to_code(values)}"
            )
        if number > LARGEST_CLASS:
            raise LabelError(
                f"{place(row)} has label {shown(value)}, which is too large for a class. Correct the label"
            )
        labels.append(int(number))
    return np.array(labels, dtype=np.int64)


def real_labels(values: Iterable[Any], place: Place) -> NDArray[np.float64]:
    """Return the labels as real numbers.

    Raises:
        LabelError: a label is missing or not finite; names row and value.
    """
    labels = []
    for row, value in enumerate(values):
        _check_there(value, place(row))
        number = number_in(value)
        if number is None:
            comma = isinstance(value, str) and number_of(value.replace(",", ".")) is not None
            how = "write decimals with a point" if comma else "correct or remove the row"
            raise LabelError(f"{place(row)} has label {shown(value)}, which is not a finite number; {how}")
        labels.append(float(number))
    return np.array(labels, dtype=np.float64)


def sign_labels(values: Iterable[Any], place: Place, cut: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that are kept and their classes: 1 above the cut, 0 below minus the cut.

    Raises:
        LabelError: as `real_labels`.
    """
    numbers = real_labels(values, place)
    rows = np.flatnonzero(np.abs(numbers) > cut)
    return rows, (numbers[rows] > 0).astype(np.int64)


def _check_there(value: Any, where: str) -> None:
    if name_of(value) == MISSING:
        raise LabelError(f"{where} has no label; remove the row, or name a split whose labels are given")


def number_in(value: Any) -> int | float | None:
    """Return a label's finite number, also from a text; None if there is none."""
    number = number_of(value) if isinstance(value, str) else value
    if not isinstance(number, int | float | np.number | Decimal):
        return None
    try:
        return (number if isinstance(number, int) else float(number)) if math.isfinite(float(number)) else None
    except OverflowError:
        return None


def _how_to_code(values: list[Any]) -> str:
    found = sorted({number for value in values if (number := number_in(value)) is not None})
    if len(found) > MOST_LISTED or any(number != int(number) for number in found):
        return "Set task.sign_cut to make two classes of ratings, or choose task.kind: regression"
    classes = written((name_of(number), position) for position, number in enumerate(found))
    return (
        f"Say which classes the labels are, as in task.labels: {classes} (with null for those whose rows are left out: "
        "-1 often stands for a label that is withheld), set task.sign_cut to make two classes of ratings, or choose "
        "task.kind: regression"
    )


def _held(value: Any) -> str:
    return "nothing" if value is None else shown(value)


def shown(value: Any) -> str:
    """Return a value for messages, shortened if it is long."""
    try:
        shown = repr(value)
    except ValueError:  # an integer with more digits than Python writes
        return "a number with thousands of digits"
    return shown if len(shown) <= 80 else f"{shown[:80]}..."
