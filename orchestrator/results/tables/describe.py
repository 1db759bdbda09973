"""The reference page of the tables, written from their schemas."""

from orchestrator.results.tables.schema import SCHEMA_VERSION, TABLES


def tables_page() -> str:
    """Return the reference of the tables in Markdown: every column with its type, meaning and unit."""
    parts = [
        "# The tables",
        "",
        f"Parquet files under `results/<sweep>/tables/<table>/`, schema version {SCHEMA_VERSION}. Columns are only",
        "ever added. A quantity that does not exist for a cell is null. Columns marked *provenance* may differ between",
        "two runs of one sweep; nothing else may, but for last bits where `halvings` is not 0.",
        "",
        "`tables/manifest.json` has the checksum of each file, which `ntksweep.load`, the commands and",
        "`status --verify` compare before anything is read. Pages have checksums too. Other readers, such as",
        "DuckDB and pandas, compare neither unless they are told to.",
        "",
        "This page is written from the code by `python docs/write_reference.py`.",
        "",
    ]
    for table in TABLES.values():
        parts += [
            f"## `{table.name}`",
            "",
            table.about,
            "",
            "| column | type | meaning | unit |",
            "| --- | --- | --- | --- |",
        ]
        for column in table.columns:
            meaning = column.meaning.replace("|", "\\|") + (" (*provenance*)" if column.provenance else "")
            parts.append(f"| `{column.name}` | {column.type} | {meaning} | {column.unit} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"
