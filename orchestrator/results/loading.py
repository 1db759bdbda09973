"""Loading results: the tables of a results folder as pyarrow datasets."""

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from orchestrator.errors import OutdatedError, ResultsError
from orchestrator.literal import printable
from orchestrator.results.tables.manifest import PART, table_names, verified_part
from orchestrator.results.tables.schema import TABLES, arrow_schema
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.missing_places import run_again

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


SHOWN_ROWS, SHOWN_COLUMNS = 5, 12
"""Most rows and columns of a table that a notebook shows."""

_VERIFYING = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


class Table:
    """One table of a sweep. DuckDB and any other reader of Parquet can open the files in `path` as well.

    Attributes:
        name: its name.
        path: folder of its Parquet files.
        dataset: the table as a pyarrow dataset, nothing read yet.
    """

    def __init__(self, name: str, part: Path) -> None:
        self.name = name
        self.path = part.parent
        with self._explained():
            self.dataset: ds.Dataset = ds.dataset([str(part)], schema=arrow_schema(TABLES[name]), format=_VERIFYING)

    def __len__(self) -> int:
        with self._explained():
            return int(self.dataset.count_rows())

    def to_arrow(self, columns: list[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Return the rows as an Arrow table.

        Args:
            columns: columns to read; None reads all.
            where: a pyarrow expression that rows must meet; None keeps all.

        Raises:
            ResultsError: the file was damaged since it was loaded.
        """
        with self._explained():
            return self.dataset.to_table(columns=columns, filter=where)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            again = run_again(self.path.parent.parent)
            raise ResultsError(
                f"the table `{self.name}` in {self.path} cannot be read ({error}); `{again}` writes it again"
            ) from error

    def to_pandas(self, columns: list[str] | None = None) -> "pd.DataFrame":
        """Return the rows as a pandas data frame."""
        frame: pd.DataFrame = self.to_arrow(columns).to_pandas()
        return frame

    def to_polars(self, columns: list[str] | None = None) -> "pl.DataFrame":
        """Return the rows as a polars data frame.

        Raises:
            OutdatedError: polars is not installed.
        """
        try:
            import polars
        except ImportError:
            raise OutdatedError("to_polars needs polars: pip install 'ntksweep[polars]'") from None
        frame: pl.DataFrame = polars.DataFrame(self.to_arrow(columns))
        return frame

    def _repr_html_(self) -> str:
        """Return the first rows for a notebook, of the columns in which they differ; pandas escapes texts."""
        with self._explained():
            rows = self.dataset.head(SHOWN_ROWS).to_pandas()
        key, *others = rows.columns
        varying = [name for name in others if rows[name].astype(str).nunique() > 1]
        shown = rows[[key, *varying] if varying else [key, *others]].to_html(
            index=False, max_cols=SHOWN_COLUMNS, border=0
        )
        more = f"<p>and {len(self) - SHOWN_ROWS:,} more rows</p>" if len(self) > SHOWN_ROWS else ""
        return f"{shown}{more}<p>Table <code>{escape(printable(f'{self.name} at {self.path}'))}</code></p>"

    def __repr__(self) -> str:
        return f"<ntksweep table {self.name}: {len(self)} rows at {self.path}>"


class Results:
    """The tables of a results folder: `cells`, `spectra`, and further ones that the spec asked for."""

    def __init__(self, folder: ResultsFolder) -> None:
        self.folder = folder
        self._verified: dict[Path, tuple[int, ...]] = {}

    @property
    def names(self) -> list[str]:
        """Names of the existing tables."""
        return table_names(self.folder)

    def __getattr__(self, name: str) -> Table:
        """Return a table by name, as `results.cells`."""
        if name not in TABLES:
            raise AttributeError(f"there is no table `{name}`; tables: {', '.join(TABLES)}")
        return self.table(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *TABLES]

    def table(self, name: str) -> Table:
        """Return a table by name.

        Raises:
            ResultsError: there is no such table, it was not asked for, or it is damaged.
        """
        if name not in TABLES:
            nearest = difflib.get_close_matches(name, TABLES, n=1)
            guess = f"did you mean `{nearest[0]}`? " if nearest else ""
            raise ResultsError(f"there is no table `{name}`; {guess}tables of this sweep: {', '.join(self.names)}")
        known = self.folder.tables / name / PART
        if known in self._verified and self._verified[known] == _state(known):
            return Table(name, known)
        before = _state(known)
        part = verified_part(self.folder, name)
        if part is None:
            raise ResultsError(f"{self.folder.root} has no table `{name}`; {TABLES[name].hint}")
        self._verified[part] = before
        return Table(name, part)

    def __repr__(self) -> str:
        return f"<ntksweep results at {self.folder.root}>"


def _state(path: Path) -> tuple[int, ...]:
    """Return values that change when a file changes; empty where there is no file."""
    try:
        facts = os.lstat(path)
    except OSError:
        return ()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def load(path: str | Path) -> Results:
    """Return the tables of the results folder at `path`.

    Raises:
        ResultsError: there are no results at `path`.
    """
    folder = ResultsFolder(Path(path))
    folder.check_folders()
    if not folder.tables.is_dir():
        folder.existing()
        raise ResultsError(f"{folder.root} has no tables yet; `ntksweep run` writes them as cells are finished")
    return Results(folder)
