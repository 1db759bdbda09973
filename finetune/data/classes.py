"""Classes of labels: from a map of their names, or found in the data."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.columns import Place, integer_labels, number_in, shown
from finetune.data.label_names import MISSING, name_of, written
from finetune.errors import LabelError
from finetune.settings import Labels

MOST_NAMES = 20
"""Names of labels up to which nothing is asked: more of them are classes only where most of them occur twice."""

_LISTED = 8

_STAND_FOR_NOTHING = frozenset({"nan", "none", "null", "n/a", "na", "<na>", "?", "-"})
"""Names, in small letters, that other programs write for a missing value."""


def labels_of(columns: Sequence[tuple[Sequence[Any], Place]], where: str) -> Labels:
    """Return the class of each label that has a name, in the order of the names; nothing where labels are numbers.

    Args:
        columns: the labels of each split, and the place of each.
        where: the data and the column, for messages.

    Raises:
        LabelError: numbers and names are mixed, a name seems to be that of a missing label, two names differ in capital
            letters alone, there is but one, or nearly as many as rows.
    """
    if all(type(value) is int for values, _ in columns for value in values):
        return ()
    rows = [(value, place, row) for values, place in columns for row, value in enumerate(values)]
    found = [(name_of(value), value, place, row) for value, place, row in rows]
    found = [each for each in found if each[0] != MISSING]
    for _, value, place, row in found:
        if isinstance(value, list | dict):
            raise LabelError(
                f"{place(row)} has label {shown(value)}, which is several values, and an example has one label; write "
                "one into a column of its own"
            )
    named = [each for each in found if number_in(each[1]) is None and not isinstance(each[1], float)]
    if not named:
        return ()
    names = sorted({name for name, *_ in named})
    _, value, place, row = named[0]
    if len(named) < len(found):
        raise LabelError(
            f"{place(row)} has label {shown(value)}, where {len(found) - len(named)} of {len(found)} labels are "
            "numbers; correct or remove the row, or give the class of each label in task.labels, or null for those "
            "whose rows are left out"
        )
    for name, value, place, row in named:
        if stands_for_nothing(name):
            others = [(each, number) for number, each in enumerate(each for each in names if each != name)]
            raise LabelError(
                f"{place(row)} has label {shown(value)}, which often stands for a missing one; remove the row, or "
                f"leave such rows out: task.labels: {_some([*others, (name, None)])}; or give it a class there"
            )
    alike = Counter(name.casefold() for name in names)
    if twice := [name for name in names if alike[name.casefold()] > 1]:
        pair = [name for name in twice if name.casefold() == twice[0].casefold()]
        classes = {name: number for number, name in enumerate(alike)}
        both = [(name, classes[name.casefold()]) for name in names]
        raise LabelError(
            f"{where}: the labels {' and '.join(map(repr, pair))} differ in capital letters alone; write them alike, or "
            f"say in task.labels which classes they are: {_some(both)}"
        )
    if len(names) > MOST_NAMES and 2 * len(names) > len(named):
        raise LabelError(
            f"{where}: there are {len(names):,} different labels in {len(named):,} rows, such as {shown(named[0][1])}: "
            "is task.label the column of the classes? If it is, list them in task.labels"
        )
    if len(names) == 1:
        raise LabelError(f"{where}: every label is {shown(named[0][1])}; give rows of two classes")
    return tuple((name, number) for number, name in enumerate(names))


def stands_for_nothing(name: str) -> bool:
    """Tell whether a label is missing, or has a name that other programs write for a missing one."""
    return name == MISSING or name.lower() in _STAND_FOR_NOTHING


def classes_of(values: Sequence[Any], place: Place, labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that are kept and their classes.

    Args:
        values: the labels of a split.
        place: their places, for messages.
        labels: the class of each name, None for those whose rows are left out; empty where labels are the classes.

    Raises:
        LabelError: as `integer_labels`, or a label that `labels` lacks; names its row.
    """
    if not labels:
        return np.arange(len(values)), integer_labels(values, place)
    known = dict(labels)
    names = [name_of(value) for value in values]
    for row, name in enumerate(names):
        if name not in known:
            raise LabelError(_unknown(name, values, names, place(row), known))
    kept = [(row, of) for row, name in enumerate(names) if (of := known[name]) is not None]
    return np.array([row for row, _ in kept], dtype=np.int64), np.array([of for _, of in kept], dtype=np.int64)


def _unknown(
    name: str, values: Sequence[Any], names: Sequence[str], where: str, known: Mapping[str, int | None]
) -> str:
    count = names.count(name)
    rows = f"{count} rows are so" if count > 1 else "it is the only one"
    if name == MISSING:
        return (
            f"{where} has no label ({rows}); give it, remove the row, or leave such rows out: task.labels: "
            f"{_some([*known.items(), (MISSING, None)])}"
        )
    return (
        f"{where} has label {shown(values[names.index(name)])} ({rows}), which task.labels lacks; it has "
        f"{', '.join(list(known)[:_LISTED])}{', ...' if len(known) > _LISTED else ''}. Add it with its class, or with "
        "null to leave such rows out"
    )


def _some(labels: Iterable[tuple[str, int | None]]) -> str:
    listed = list(labels)
    if len(listed) <= MOST_NAMES:
        return written(listed)
    return written([*listed[:3], listed[-1]]).replace("}", ", ...}")
