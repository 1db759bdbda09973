"""The reference page of the tables, written from their schemas."""

from orchestrator.results.tables.columns import SCHEMA_VERSION
from orchestrator.results.tables.schema import TABLES

_ABOUT = {
    "cells": "One row a cell of the grid.",
    "spectra": "One row a layer set, seed and training-set size.",
    "predictions": "One row an evaluation example, output and cell; written with `results.predictions: true`.",
    "densities": "One row a layer set, seed and training-set size whose kernel was not decomposed: the ends of its "
    "spectrum and an estimate of where its eigenvalues lie; written with `kernel.decomposition: iterative`. "
    "[How exact they are](numbers.md#without-a-decomposition).",
    "additions": "One row a layer set, layer that it lacks, seed and training-set size: what adding the layer does to "
    "the spectrum, beside what bounds and predicts it; written with `kernel.additions: true`. "
    "[What is proven and what is not](numbers.md#additions).",
    "trajectories": "One row a look at a cell while its model or its linearization is trained; written where the spec "
    "has a section `finetune`. Columns of the one that has ended before the other are null from there on, and so is "
    "what compares the two.",
    "updates": "One row a cell and group that was trained; written where the spec has a section `finetune`.",
    "combinations": "One row two tasks, task to evaluate, operation, coefficient and lambda, of every layer set, seed "
    "and training-set size; written with `finetune.combinations`. [What is combined](training.md#combining-tasks).",
    "correlations": "One row a quantity, outcome, regime, lambda, training-set size, task, rank and learning rate: how "
    "well the quantity orders layer sets; written where the spec has a section `finetune`. "
    "[How to read it](numbers.md#correlations).",
}


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
    for table, columns in TABLES.items():
        parts += [
            f"## `{table}`",
            "",
            _ABOUT[table],
            "",
            "| column | type | meaning | unit |",
            "| --- | --- | --- | --- |",
        ]
        for column in columns:
            meaning = column.meaning.replace("|", "\\|") + (" (*provenance*)" if column.provenance else "")
            parts.append(f"| `{column.name}` | {column.type} | {meaning} | {column.unit} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"
