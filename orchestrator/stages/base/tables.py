"""Tables of results as they are declared: name, columns and meaning, when a sweep has them, and their rows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from orchestrator.spec import Spec
    from orchestrator.stages.context.finished import Finished

ColumnType = Literal[
    "string", "int64", "double", "bool", "list<item: string>", "list<item: double>", "timestamp[ms, tz=UTC]"
]

NAME: ColumnType = "string"
NAMES: ColumnType = "list<item: string>"
COUNT: ColumnType = "int64"
REAL: ColumnType = "double"
REALS: ColumnType = "list<item: double>"
FLAG: ColumnType = "bool"
TIME: ColumnType = "timestamp[ms, tz=UTC]"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its name.
        type: its Arrow type, as Arrow writes it: a look at a sweep does without pyarrow.
        meaning: what it holds.
        unit: unit of its numbers; empty for pure numbers and names.
        provenance: whether it says where a number comes from rather than what it is; provenance may differ between two
            runs of one sweep, nothing else may, but for last bits where `halvings` is not 0.
    """

    name: str
    type: ColumnType
    meaning: str
    unit: str = ""
    provenance: bool = False


@dataclass(frozen=True)
class Rows:
    """Rows of a table.

    Attributes:
        columns: by column the values of all rows, or one value for all of them; those that are missing are null.
        n_rows: number of rows.
    """

    columns: Mapping[str, Any]
    n_rows: int


def always(_spec: "Spec") -> bool:
    """Return True: a table that every sweep has."""
    return True


@dataclass(frozen=True)
class Table:
    """A table of the results.

    Attributes:
        name: its name, also of its folder.
        columns: its columns; columns are only ever added.
        about: what a row is about, for the reference page.
        rows_from: function that yields the rows of finished stages, as `module:function`, for it loads much; empty for
            a table that is made of others.
        wanted: tells whether a sweep has it.
        hint: how to get it, for those who ask for it in vain.
    """

    name: str
    columns: tuple[Column, ...]
    about: str
    rows_from: str
    wanted: "Callable[[Spec], bool]" = always
    hint: str = "run the sweep first"

    def rows(self, finished: "Finished") -> Iterator[Rows]:
        """Yield the rows of finished stages."""
        module, _, function = self.rows_from.partition(":")
        found: Iterator[Rows] = getattr(import_module(module), function)(finished)
        return found
