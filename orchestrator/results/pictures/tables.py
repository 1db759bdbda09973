"""The tables that pictures are made of: those of a results folder, or files that `ntksweep findings` has written."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.dataset as ds

from orchestrator.errors import ResultsError
from orchestrator.results.loading import Results
from orchestrator.results.tables.schema import TABLES
from orchestrator.spec import Spec, read_spec

if TYPE_CHECKING:
    import pyarrow.compute as pc

SPEC = "spec.yaml"


class Tables(Protocol):
    """Tables of one sweep, read when they are asked for."""

    spec: Spec

    @property
    def paths(self) -> Mapping[str, Path]:
        """Where each of them lies, by its name."""

    def read(self, name: str, columns: list[str] | None = None, where: "pc.Expression | None" = None) -> pa.Table:
        """Return rows of a table; columns that it lacks are left out."""


class TablesOfResults:
    """The tables of a results folder."""

    def __init__(self, results: Results) -> None:
        self.spec = results.folder.existing().spec
        self._results = results
        self.paths = {name: results.folder.tables / name for name in results.names}

    def read(self, name: str, columns: list[str] | None = None, where: "pc.Expression | None" = None) -> pa.Table:
        """Return rows of a table; columns that it lacks are left out."""
        table = self._results.table(name)
        return table.to_arrow(_present(table.dataset, columns), where)


class WrittenTables:
    """Tables in files `<table>.parquet` beside the `spec.yaml` of their sweep."""

    def __init__(self, folder: Path) -> None:
        self.spec = read_spec(folder / SPEC)
        self.paths = {name: folder / f"{name}.parquet" for name in TABLES if _is_plain(folder / f"{name}.parquet")}

    @staticmethod
    def are_in(folder: Path) -> bool:
        """Return whether a folder holds such files."""
        return all(_is_plain(folder / name) for name in ("cells.parquet", SPEC))

    def read(self, name: str, columns: list[str] | None = None, where: "pc.Expression | None" = None) -> pa.Table:
        """Return rows of a table; columns that it lacks are left out.

        Raises:
            ResultsError: its file cannot be read.
        """
        try:
            dataset = ds.dataset([str(self.paths[name])])
            return dataset.to_table(columns=_present(dataset, columns), filter=where)
        except (OSError, pa.ArrowInvalid) as error:
            raise ResultsError(f"{self.paths[name]} cannot be read ({error})") from error


def _is_plain(path: Path) -> bool:
    # of a folder that comes from somebody else no link is followed; it may be one that may not be entered
    return os.path.isfile(path) and not os.path.islink(path)  # noqa: PTH113, PTH114


def _present(dataset: ds.Dataset, columns: list[str] | None) -> list[str] | None:
    return None if columns is None else [name for name in columns if name in dataset.schema.names]
