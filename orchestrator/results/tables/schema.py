"""All tables, and their Arrow schemas."""

import pyarrow as pa

from orchestrator.results.tables.cells import CELLS
from orchestrator.results.tables.correlation_columns import CORRELATIONS
from orchestrator.stages.base.tables import Table
from orchestrator.stages.registry import KINDS

SCHEMA_VERSION = 5
"""Raised when columns are added; stands in the metadata of every file."""

TABLES: dict[str, Table] = {
    table.name: table for table in (CELLS, *(table for kind in KINDS.values() for table in kind.tables), CORRELATIONS)
}

ARROW_TYPES: dict[str, pa.DataType] = {
    str(each): each
    for each in (
        pa.string(),
        pa.int64(),
        pa.float64(),
        pa.bool_(),
        pa.list_(pa.string()),
        pa.list_(pa.float64()),
        pa.timestamp("ms", tz="UTC"),
    )
}


def arrow_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table, meanings and units in the fields' metadata."""
    fields = [
        pa.field(
            column.name,
            ARROW_TYPES[column.type],
            metadata={
                "meaning": column.meaning,
                "unit": column.unit,
                "provenance": "yes" if column.provenance else "no",
            },
        )
        for column in table.columns
    ]
    return pa.schema(fields, metadata={"ntksweep_table": table.name, "ntksweep_schema_version": str(SCHEMA_VERSION)})
