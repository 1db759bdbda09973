"""Collecting: the tables of all finished stages, replaced in one step, so that a reader never sees half a table."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.folder import ResultsFolder
from orchestrator.plan import Plan
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.files import explained, temporary_beside
from orchestrator.tables.build import (
    CELLS_SCHEMA,
    PREDICTIONS_SCHEMA,
    SPECTRA_SCHEMA,
    cells_of,
    predictions_of,
    spectra_of,
)
from orchestrator.tables.manifest import PART, cells_in_complete_tables, sha256_of, write_manifest

ROWS_A_GROUP = 1 << 17
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
        there = cells_in_complete_tables(plan, folder)  # of many allocations that end together, one has to write them
        return _collect(plan, folder) if there is None else there
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
    write_manifest(folder, manifest)
    return int(n_cells)


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
            facts = {"rows": n_rows, "bytes": temporary.stat().st_size, "sha256": sha256_of(temporary)}
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
