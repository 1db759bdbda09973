"""Writing a table to one file, in a format that other tools read."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from orchestrator.results.loading import Table
from orchestrator.standard_json import standard_json
from orchestrator.store.files import explained_output, make_folder


def write_table(table: Table, path: Path, file_format: str) -> int:
    """Write a table to `path` as csv, jsonl or parquet; return the number of rows.

    Lists, which CSV does not have, are written as JSON text; infinities, which JSON does not have, as null.

    Raises:
        StorageError: the file cannot be written.
    """
    rows = table.to_arrow()
    make_folder(path.parent)
    with explained_output(path), path.open("wb") as stream:
        if file_format == "parquet":
            pq.write_table(rows, stream, compression="zstd")
        elif file_format == "csv":
            pa_csv.write_csv(_flat(rows), stream)
        else:
            for batch in rows.to_batches(max_chunksize=10_000):
                stream.writelines(f"{standard_json(row)}\n".encode() for row in batch.to_pylist())
    return len(rows)


def _flat(rows: pa.Table) -> pa.Table:
    for position, field in enumerate(rows.schema):
        if pa.types.is_list(field.type):
            texts = [json.dumps(value) for value in rows[field.name].to_pylist()]
            rows = rows.set_column(position, field.name, pa.array(texts, pa.string()))
    return rows
