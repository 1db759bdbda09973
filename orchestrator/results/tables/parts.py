"""The files of new tables, which replace the old ones together."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.results.tables.manifest import MANIFEST, PART, TABLES_NOTED, facts_of, write_manifest
from orchestrator.store.artifacts import DAMAGED
from orchestrator.store.files import explained, make_folder, move_aside, temporary_beside
from orchestrator.sweep.folder import ResultsFolder

ROWS_A_GROUP = 1 << 17


class NewTables:
    """New tables that are written beside the existing ones; they are removed unless they are published.

    A reader compares each file with the manifest, so all are put in place at once, and the manifest right after them.
    """

    def __init__(self, folder: ResultsFolder) -> None:
        self._folder = folder
        self._parts: dict[str, Path] = {}
        self._facts: dict[str, dict[str, Any]] = {}

    def write(self, table: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        """Write a table, which is not visible yet.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        path = self._folder.tables / table / PART
        if os.path.lexists(path.parent) and not path.parent.is_dir():
            self._set_aside(path.parent)
        make_folder(path.parent)
        self._parts[table] = temporary = temporary_beside(path)
        n_rows = 0
        with explained(path):
            # The checksums of pages are for readers that compare them; the manifest has that of the whole file.
            with pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer:
                for group in _grouped(batches):
                    writer.write_table(group)
                    n_rows += group.num_rows
            self._facts[table] = facts_of(temporary, n_rows)

    def has(self, table: str) -> bool:
        """Tell whether a table was written."""
        return table in self._parts

    def read(self, table: str, columns: list[str]) -> pa.Table:
        """Return columns of a table that was written, and is not published yet."""
        return pq.read_table(self._parts[table], columns=columns)

    def publish(self, manifest: dict[str, Any]) -> None:
        """Replace the old tables with the new ones, and write their manifest.

        Raises:
            StorageError: the folder cannot be written.
        """
        for path in (*(self._folder.tables / table / PART for table in self._parts), self._folder.tables / MANIFEST):
            if path.is_dir() and not path.is_symlink():
                self._set_aside(path)
        for table, temporary in self._parts.items():
            path = self._folder.tables / table / PART
            with explained(path):
                temporary.replace(path)
        write_manifest(self._folder, {**manifest, "tables": self._facts})
        for table in self._parts:
            self._folder.artifacts().drop_note(TABLES_NOTED, table)

    def _set_aside(self, path: Path) -> None:
        move_aside(path, self._folder.artifacts().root / DAMAGED / "tables")

    def __enter__(self) -> "NewTables":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for temporary in self._parts.values():
            temporary.unlink(missing_ok=True)


def _grouped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join small batches into row groups of an efficient size."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) >= ROWS_A_GROUP:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)
