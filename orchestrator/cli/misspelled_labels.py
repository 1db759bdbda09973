"""Labels that look like a mistyped one of the others: nearly the same letters, on a row or two."""

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.data.label_names import written

if TYPE_CHECKING:
    from finetune.settings import Labels

MOST_ROWS = 2
"""Rows on which a mistyped label stands, at most."""

TIMES_AS_MANY = 10
"""Rows of the label that was meant, for each of those."""

ALIKE = 0.85
"""Likeness, as difflib measures it, from which on a label may be meant for another one."""

MOST_WRITTEN = 20
"""Labels up to which the whole key is written."""


def misspelled_said(labels: "Labels", sizes: Sequence[int]) -> str:
    """Return which labels were probably meant for others, and what to write; empty where there are none.

    Args:
        labels: the class of each label by its name. Labels that share a class were brought together already.
        sizes: number of examples of each class.
    """
    names: dict[int, list[str]] = {}
    for name, of in labels:
        if of is not None:
            names.setdefault(of, []).append(name)
    found = {name: meant for of, (name, *others) in names.items()
             if not others and (meant := _meant(name, of, names, sizes)) is not None}  # fmt: skip
    if not found or len(names) - len(found) < 2:
        return ""
    of_label = dict(labels)
    said = "; ".join(
        f"label `{name}` stands {'once' if sizes[of_label[name] or 0] == 1 else 'twice'}; did you mean `{meant}`?"
        for name, meant in found.items()
    )
    return f"{said} Then write task.labels: {_brought_together(labels, found)}"


def _meant(name: str, of: int, names: dict[int, list[str]], sizes: Sequence[int]) -> str | None:
    if not 0 < sizes[of] <= MOST_ROWS or _has_digits(name):
        return None
    others = [
        other
        for another, written_as in names.items()
        for other in written_as
        if sizes[another] >= TIMES_AS_MANY * sizes[of] and not (_has_digits(other) or _differ_in_a_prefix(name, other))
    ]
    folded = {other.casefold(): other for other in others}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=ALIKE)
    return folded[near[0]] if near else None


def _has_digits(name: str) -> bool:
    return any(character.isdigit() for character in name)  # names that count differ in a digit on purpose


def _differ_in_a_prefix(name: str, other: str) -> bool:
    """Tell whether one is the end of the other, as in `relevant` and `irrelevant`, which say the opposite."""
    return name.casefold() != other.casefold() and (name.endswith(other) or other.endswith(name))


def _brought_together(labels: "Labels", meant: dict[str, str]) -> str:
    """Return the mapping in which each mistyped label has the class of the one that was meant."""
    if len(labels) > MOST_WRITTEN:
        return "{" + ", ".join(f"{name}: the class of {other}" for name, other in meant.items()) + ", ...}"
    of_label = dict(labels)
    left = sorted({of for name, of in labels if of is not None and name not in meant})
    number = {of: position for position, of in enumerate(left)}
    classes = [(name, of_label[meant.get(name, name)]) for name, _ in labels]
    return written((name, None if of is None else number[of]) for name, of in classes)
