"""Classes of labels: from a map of their names, or found in the data."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.columns import Place, integer_labels, number_in, shown
from finetune.data.label_names import MISSING, name_of, written
from finetune.data.reading.table import visible
from finetune.errors import LabelError
from finetune.settings import Labels

MOST_NAMES = 20
"""Names of labels up to which nothing is asked: more of them are classes only where most of them occur twice."""

_LISTED = 8

_STAND_FOR_NOTHING = frozenset({"nan", "none", "null", "n/a", "na", "<na>", "?"})
"""Names, in small letters, that other programs write for a missing value."""


@dataclass(frozen=True)
class _Label:
    """A label that is there, as a file has it, with its name and its place."""

    name: str
    value: Any
    row: int
    place: Place

    @property
    def said(self) -> str:
        return f"{self.place(self.row)} has label {shown(self.value)}"

    @property
    def is_name(self) -> bool:
        return number_in(self.value) is None and not isinstance(self.value, float)


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
    found = [
        _Label(name, value, row, place)
        for values, place in columns
        for row, value in enumerate(values)
        if (name := name_of(value)) != MISSING
    ]
    named = [label for label in found if label.is_name]
    if not named:
        return ()
    _refuse_mixed(found, named)
    names = sorted({label.name for label in named})
    _refuse_nothing(named, names)
    _refuse_alike(names, where)
    if len(names) > MOST_NAMES and 2 * len(names) > len(named):
        raise LabelError(
            f"{where}: there are {len(names):,} different labels in {len(named):,} rows, such as "
            f"{shown(named[0].value)}: is task.label the column of the classes? If it is, list them in task.labels",
            setting="task.label",
        )
    if len(names) == 1:
        raise LabelError(f"{where}: every label is {shown(named[0].value)}; give rows of two classes")
    return tuple((name, number) for number, name in enumerate(names))


def _refuse_mixed(found: Sequence[_Label], named: Sequence[_Label]) -> None:
    for label in named:
        if isinstance(label.value, list | dict):
            raise LabelError(
                f"{label.said}, which is several values, and an example has one label; write one of them alone"
            )
    if len(named) < len(found):
        raise LabelError(
            f"{named[0].said}, where {len(found) - len(named)} of {len(found)} labels are numbers; correct or remove "
            "the row, or give the class of each label in task.labels, or null for those whose rows are left out"
        )


def _refuse_nothing(named: Sequence[_Label], names: Sequence[str]) -> None:
    for label in named:
        if stands_for_nothing(label.name):
            classes = [(name, number) for number, name in enumerate(name for name in names if name != label.name)]
            raise LabelError(
                f"{label.said}, which often stands for a missing one; remove the row, or leave such rows out: "
                f"task.labels: {_some([*classes, (label.name, None)])}; or give it a class there"
            )


def _refuse_alike(names: Sequence[str], where: str) -> None:
    counts = Counter(map(_as_seen, names))
    first = next((name for name in names if counts[_as_seen(name)] > 1), None)
    if first is None:
        return
    same = [name for name in names if _as_seen(name) == _as_seen(first)]
    capitals = len({name.casefold() for name in same}) == 1
    alike = " and ".join(repr(name) if capitals else ascii(name) for name in same)
    how = "capital letters alone" if capitals else "characters that look alike or are not seen"
    classes = {seen: number for number, seen in enumerate(sorted(counts))}
    raise LabelError(
        f"{where}: the labels {alike} differ in {how}; write them alike, or say in task.labels which "
        f"classes they are: {_some((name, classes[_as_seen(name)]) for name in names)}"
    )


def _as_seen(name: str) -> str:
    """Return a name without differences that people do not see, such as how its accents are encoded."""
    return " ".join(visible(name).casefold().split())


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
            raise LabelError(_unknown(name, values, names, place(row), known), setting="task.labels")
    kept = [(row, of) for row, name in enumerate(names) if (of := known[name]) is not None]
    return np.array([row for row, _ in kept], dtype=np.int64), np.array([of for _, of in kept], dtype=np.int64)


def _unknown(
    name: str, values: Sequence[Any], names: Sequence[str], where: str, known: Mapping[str, int | None]
) -> str:
    count = names.count(name)
    rows = f"{count} such rows" if count > 1 else "the only such row"
    if name == MISSING:
        return (
            f"{where} has no label ({rows}); give it, remove the row, or leave such rows out: task.labels: "
            f"{_some([*known.items(), (MISSING, None)])}"
        )
    fix = "Add it with its class, or with null to leave such rows out"
    if nearest := difflib.get_close_matches(name, sorted(known.keys() - set(names)), n=1):
        fix = f"No row has {nearest[0]!r}: if that is this label misspelled, correct it there. Otherwise a{fix[1:]}"
    return (
        f"{where} has label {shown(values[names.index(name)])} ({rows}), which task.labels lacks; it has "
        f"{', '.join(list(known)[:_LISTED])}{', ...' if len(known) > _LISTED else ''}. {fix}"
    )


def _some(labels: Iterable[tuple[str, int | None]]) -> str:
    listed = list(labels)
    if len(listed) <= MOST_NAMES:
        return written(listed)
    return written([*listed[:3], listed[-1]]).replace("}", ", ...}")
