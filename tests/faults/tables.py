"""Comparing the results of two runs of one sweep: everything but provenance, bit for bit."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa

from orchestrator import load
from orchestrator.results.tables.schema import TABLES


def numbers(results: Path) -> dict[str, pa.Table]:
    """Return the tables of a sweep without the columns that may differ between two runs."""
    found = {}
    for name, columns in ((name, table.columns) for name, table in TABLES.items()):
        if (results / "tables" / name).is_dir():
            kept = [column.name for column in columns if not column.provenance]
            found[name] = load(results).table(name).to_arrow(kept).combine_chunks()
    return found


def assert_same_tables(results: Path, expected: dict[str, pa.Table]) -> None:
    """Check that the tables of a sweep have the rows, the order and the bits of `expected`, and no others."""
    found = numbers(results)
    assert found.keys() == expected.keys()
    for name, table in expected.items():
        assert found[name].schema.equals(table.schema, check_metadata=True)
        for column in table.column_names:
            assert _bits(found[name], column) == _bits(table, column), f"{name}.{column} differs"


def _bits(table: pa.Table, column: str) -> bytes:
    # Arrow's own comparison takes two nan for different and 0.0 for -0.0.
    sink = pa.BufferOutputStream()
    part = table.select([column])
    with pa.ipc.new_stream(sink, part.schema) as writer:
        writer.write_table(part)
    return sink.getvalue().to_pybytes()


def checksums(results: Path) -> dict[str, str]:
    """Return the checksum of what each artifact of a sweep says, without where and when it was computed."""
    found = {}
    for path in sorted((results / "artifacts").glob("*/*.json")):
        record = json.loads(path.read_bytes())
        numbers_only = json.dumps([record["stage"], record["facts"], record["arrays"]], sort_keys=True)
        found[f"{path.parent.name}/{path.stem}"] = hashlib.sha256(numbers_only.encode()).hexdigest()
    return found
