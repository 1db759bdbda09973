"""Columns of a file or of a data set on the hub, with the place of each row there."""

import difflib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune.errors import DataLoadError, MissingColumnError


@dataclass(frozen=True, eq=False)
class Table:
    """N rows of the columns that a task names.

    Attributes:
        columns: their values by name, N each. Those of CSV and TSV files are all texts.
        n_rows: N.
        place: says for people where a row stands, for example "data.csv, line 5".
        class_names: the names of the classes 0, 1, ... of a column, where the data bring them.
    """

    columns: Mapping[str, list[Any]]
    n_rows: int
    place: Callable[[int], str]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def check_names(where: str, names: Sequence[str], wanted: Sequence[str], *, hint: str = "") -> None:
    """Check that a file has the columns that are wanted, and none twice.

    Args:
        where: the file, or the data set.
        names: names of its columns; empty ones do not count.
        wanted: those that are needed.
        hint: what a reader may have to know of such files.

    Raises:
        DataLoadError: a name occurs twice.
        MissingColumnError: a wanted name is missing; lists those that exist.
    """
    for name in names:
        if name and list(names).count(name) > 1:
            raise DataLoadError(f"{where} has the column {name!r} twice; rename or remove one of them")
    missing = [name for name in dict.fromkeys(wanted) if name not in names]
    if missing and not any(names):
        raise MissingColumnError(f"{where} names no column: it may be empty; give data with examples")
    if missing:
        listed = ", ".join(each if each == each.strip() and each else repr(each) for each in names)
        said = " and no column ".join(f"{name!r}{_nearest(name, names)}" for name in missing)
        said = f"{where} has no column {said}; its columns are: {listed}{hint}"
        raise MissingColumnError(said, columns=missing)


def _nearest(name: str, names: Sequence[str]) -> str:
    """Return a hint at the column that may be meant; empty where none is near."""
    alike = next((each for each in names if _look_alike(each, name)), None)
    if alike is not None:
        return f" ({alike!a} may look like {name!a}, but has other characters: copy it from the file)"
    near = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _look_alike(one: str, other: str) -> bool:
    """Tell whether two names differ in what people do not see, or in letters beyond ASCII alone."""
    one, other = visible(one), visible(other)
    return len(one) == len(other) and all(a == b or not (a + b).isascii() for a, b in zip(one, other, strict=True))


def visible(name: str) -> str:
    """Return the visible form of a name: composed, without characters of no width or white space around it."""
    composed = unicodedata.normalize("NFKC", name)
    return "".join(each for each in composed if unicodedata.category(each) != "Cf").strip()


def joined(parts: Sequence[Table]) -> Table:
    """Return the rows of several tables, one after the other."""
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([part.n_rows for part in parts])

    def place(row: int) -> str:
        part = int(np.searchsorted(ends, row, side="right"))
        within = row - int(ends[part]) + parts[part].n_rows
        return f"{parts[part].place(within)} (row {within} there)"

    columns = {name: [value for part in parts for value in part.columns[name]] for name in parts[0].columns}
    return Table(columns, int(ends[-1]), place, parts[0].class_names)
