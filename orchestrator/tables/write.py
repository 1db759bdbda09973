"""Collecting: the tables of all finished stages, replaced in one step, so that a reader never sees half a table."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.folder import ResultsFolder
from orchestrator.plan import Plan
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.files import explained, replace, temporary_beside
from orchestrator.store.sealed import sealed, unsealed
from orchestrator.tables.build import (
    CELLS_SCHEMA,
    PREDICTIONS_SCHEMA,
    SPECTRA_SCHEMA,
    cells_of,
    predictions_of,
    spectra_of,
)

ROWS_A_GROUP = 1 << 17
PART = "part-0.parquet"
MANIFEST = "manifest.json"
POLL_SECONDS = 0.2
"""Pause between looks at whether another run is done with the tables."""


def collect(plan: Plan, folder: ResultsFolder) -> int:
    """Write the tables of every finished cell of a plan, compacted; return the number of cells.

    Runs that share a sweep collect one after the other, so that none puts older tables over newer ones.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
        StorageError: the disk is full or the folder cannot be written.
    """
    claims = folder.claims()
    while (claim := claims.take("tables")) is None:
        time.sleep(POLL_SECONDS)
    try:
        return _collect(plan, folder)
    finally:
        claims.release(claim)


def _collect(plan: Plan, folder: ResultsFolder) -> int:
    store = folder.artifacts()
    finished = store.finished("solve")
    solves = [solve for solve in plan.solves if solve.stage.stage_id in finished]

    def rows(build: Any) -> Iterator[pa.RecordBatch]:
        for solve in solves:
            yield build(plan, solve, store.read("solve", solve.stage.stage_id))

    written = {
        "cells": _write(folder, "cells", CELLS_SCHEMA, rows(cells_of)),
        "spectra": _write(folder, "spectra", SPECTRA_SCHEMA, rows(spectra_of)),
    }
    if plan.sweep.spec.results.predictions:
        written["predictions"] = _write(folder, "predictions", PREDICTIONS_SCHEMA, _predictions(plan, store, solves))
    n_cells = written["cells"]["rows"]
    manifest = {"plan": plan.plan_id, "complete": len(solves) == len(plan.solves), "tables": written}
    replace(folder.tables / MANIFEST, sealed(manifest))
    return int(n_cells)


def read_manifest(folder: ResultsFolder) -> dict[str, Any] | None:
    """Return what the tables hold; None where there are none, or where a file is not the one that was written."""
    try:
        manifest = unsealed((folder.tables / MANIFEST).read_bytes())
        for name, facts in manifest["tables"].items():
            if (folder.tables / name / PART).stat().st_size != facts["bytes"]:
                return None
    except (OSError, ValueError):
        return None
    return manifest


def damaged_tables(folder: ResultsFolder) -> list[str]:
    """Return the files of the tables that do not match their checksum."""
    try:
        manifest = unsealed((folder.tables / MANIFEST).read_bytes())
    except FileNotFoundError:
        return []  # nothing was collected yet
    except (OSError, ValueError):
        return [MANIFEST]
    parts = {f"{name}/{PART}": facts["sha256"] for name, facts in manifest["tables"].items()}
    return [part for part, sha256 in parts.items() if _sha256(folder.tables / part) != sha256]


def _predictions(plan: Plan, store: ArtifactStore, solves: list[Any]) -> Iterator[pa.RecordBatch]:
    for solve in solves:
        (dataset,) = solve.stage.inputs["dataset"]
        rows = np.array(store.open(*dataset).array("eval.rows"))
        yield from predictions_of(plan, solve, store.read("solve", solve.stage.stage_id), rows)


def _write(folder: ResultsFolder, table: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
    path = folder.tables / table / PART
    temporary = temporary_beside(path)
    n_rows = 0
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for group in _grouped(batches):
                    writer.write_table(group)
                    n_rows += group.num_rows
            facts = {"rows": n_rows, "bytes": temporary.stat().st_size, "sha256": _sha256(temporary)}
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return facts


def _grouped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join small batches into row groups that readers like."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) >= ROWS_A_GROUP:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None
