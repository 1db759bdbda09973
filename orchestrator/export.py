"""Writing a table to one file, in a format that other tools read."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from orchestrator.results import Table
from orchestrator.standard_json import standard_json


def write_table(table: Table, path: Path, file_format: str) -> int:
    """Write a table to `path` as csv, jsonl or parquet; return the number of rows.

    Lists, which CSV does not have, are written as JSON text; infinities, which JSON does not have, as null.
    """
    rows = table.to_arrow()
    path.parent.mkdir(parents=True, exist_ok=True)
    if file_format == "parquet":
        pq.write_table(rows, path, compression="zstd")
    elif file_format == "csv":
        pa_csv.write_csv(_flat(rows), path)
    else:
        with path.open("w", encoding="utf-8") as stream:
            for batch in rows.to_batches(max_chunksize=10_000):
                stream.writelines(standard_json(row) + "\n" for row in batch.to_pylist())
    return len(rows)


def _flat(rows: pa.Table) -> pa.Table:
    for position, field in enumerate(rows.schema):
        if pa.types.is_list(field.type):
            texts = [json.dumps(value) for value in rows[field.name].to_pylist()]
            rows = rows.set_column(position, field.name, pa.array(texts, pa.string()))
    return rows
