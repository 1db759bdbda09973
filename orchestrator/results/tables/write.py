"""Collecting the tables of all finished stages, which are replaced in one step, so that none is seen incomplete."""

import time
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from orchestrator.plan.plan import Plan
from orchestrator.results.tables.contribution_to_all import COLUMNS as CONTRIBUTION_COLUMNS
from orchestrator.results.tables.correlations import CELL_COLUMNS, correlations_of
from orchestrator.results.tables.manifest import CLAIM, cells_in_complete_tables
from orchestrator.results.tables.parts import NewTables
from orchestrator.results.tables.schema import TABLES, arrow_schema
from orchestrator.stages.base.cells import Solve
from orchestrator.stages.base.tables import Rows
from orchestrator.stages.context.finished import Finished
from orchestrator.sweep.folder import ResultsFolder

POLL_SECONDS = 0.2
"""Pause between checks whether another run has finished with the tables."""


def collect(plan: Plan, folder: ResultsFolder) -> int:
    """Write the tables of every finished cell of a plan, compacted; return the number of cells.

    Runs that share a sweep collect one after the other, so that none replaces newer tables with older ones.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
        StorageError: the disk is full or the folder cannot be written.
    """
    claims = folder.claims()
    while (claim := claims.take(CLAIM)) is None:
        time.sleep(POLL_SECONDS)
    try:
        there = cells_in_complete_tables(plan, folder)  # of many allocations that end together, one has to write them
        if there is not None:
            return there
        # Sums depend on threads in the last bit: the same number here as in stages.
        with NewTables(folder) as new, threadpool_limits(plan.sweep.spec.compute.threads):
            return _collect(plan, folder, new)
    finally:
        claims.release(claim)


def collect_early(plan: Plan, folder: ResultsFolder) -> int:
    """Write the tables of what is finished while the rest is computed, without those that are made of others.

    Nothing is written, and 0 returned, if another run is writing them.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
        StorageError: the disk is full or the folder cannot be written.
    """
    claims = folder.claims()
    if (claim := claims.take(CLAIM)) is None:
        return 0
    try:
        with NewTables(folder) as new, threadpool_limits(plan.sweep.spec.compute.threads):
            return _collect(plan, folder, new, derived=False)
    finally:
        claims.release(claim)


def _collect(plan: Plan, folder: ResultsFolder, new: NewTables, *, derived: bool = True) -> int:
    finished = Finished(plan, folder.artifacts())
    for table in TABLES.values():
        if table.wanted(plan.sweep.spec) and (derived or table.rows_from):
            schema = arrow_schema(table)
            if table.rows_from:
                new.write(table.name, schema, (record_batch(schema, rows) for rows in table.rows(finished)))
            else:
                new.write(table.name, schema, _derived(new))
    n_cells = sum(finished_cells(finished, solve) for solve in finished.filled(Solve))
    sweep = plan.sweep.spec.name
    new.publish({"sweep": sweep, "plan": plan.plan_id, "complete": derived and finished.is_all, "cells": n_cells})
    return n_cells


def finished_cells(finished: Finished, solve: Solve) -> int:
    """Return the number of complete cells of a finished solve stage, training included."""
    if not solve.comparisons:
        return len(solve.layer_sets) * len(finished.plan.lambdas)
    return sum(len(each.in_grid) for each in solve.comparisons if each.stage in finished)


def record_batch(schema: pa.Schema, rows: Rows) -> pa.RecordBatch:
    """Return rows in the columns and types of a table."""
    arrays = [_array(rows.columns.get(field.name), field.type, rows.n_rows) for field in schema]
    return pa.record_batch(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType, n_rows: int) -> pa.Array:
    if values is None or isinstance(values, (str, int, float, datetime)):
        return _repeated(values, kind, n_rows)
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        # A quantity that does not exist for a cell is nan in the arrays and null in the tables.
        array = pa.array(np.ascontiguousarray(values), from_pandas=True)
        return array if array.type == kind else array.cast(kind)
    return pa.array(values, kind)


@lru_cache(maxsize=1024, typed=True)  # most are the same in all stages
def _repeated(value: str | float | datetime | None, kind: pa.DataType, n_rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), n_rows)


def _derived(new: NewTables) -> Iterator[pa.RecordBatch]:
    carried = new.read("contributions", list(CONTRIBUTION_COLUMNS)) if new.has("contributions") else None
    yield correlations_of(new.read("cells", list(CELL_COLUMNS)), carried)
