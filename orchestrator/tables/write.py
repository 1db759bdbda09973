"""Collecting: the tables of all finished stages, replaced in one step, so that a reader never sees half a table."""

import time
from collections.abc import Callable, Iterator, Mapping, Set
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.folder import ResultsFolder
from orchestrator.plan import Plan
from orchestrator.plan_parts import Solve
from orchestrator.store.artifacts import Artifact, ArtifactStore
from orchestrator.store.files import explained, temporary_beside
from orchestrator.tables.additions import ADDITIONS_SCHEMA, additions_of, unfinished_additions
from orchestrator.tables.build import (
    CELLS_SCHEMA,
    DENSITIES_SCHEMA,
    PREDICTIONS_SCHEMA,
    SPECTRA_SCHEMA,
    TRAJECTORIES_SCHEMA,
    UPDATES_SCHEMA,
    cells_of,
    densities_of,
    predictions_of,
    spectra_of,
    trajectories_of,
    updates_of,
)
from orchestrator.tables.combinations import COMBINATIONS_SCHEMA, combinations_rows, unfinished_combinations
from orchestrator.tables.correlations import CELL_COLUMNS, CORRELATIONS_SCHEMA, correlations_of
from orchestrator.tables.manifest import PART, cells_in_complete_tables, sha256_of, write_manifest

BuildTrained = Callable[[Plan, Solve, Mapping[str, Artifact]], Iterator[pa.RecordBatch]]

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
    finished = {kind: store.finished(kind) for kind in ("solve", "compare")}
    # Before the rest, for others may finish some meanwhile.
    unfilled = unfinished_additions(plan, store) + unfinished_combinations(plan, store)
    solves = [solve for solve in plan.solves if solve.stage.stage_id in finished["solve"]]

    def compared(solve: Solve) -> dict[str, Artifact]:
        stages = [each.stage.stage_id for each in solve.comparisons]
        return {stage_id: store.read("compare", stage_id) for stage_id in stages if stage_id in finished["compare"]}

    def solved() -> Iterator[tuple[Solve, Artifact]]:
        for solve in solves:
            yield solve, store.read("solve", solve.stage.stage_id)

    def distinct() -> Iterator[tuple[Solve, Artifact]]:
        """Yield each solve stage once: those of several learning rates are the same."""
        first = {solve.stage.stage_id: solve for solve in reversed(solves)}
        return (each for each in solved() if first[each[0].stage.stage_id] is each[0])

    def trained(build: BuildTrained) -> Iterator[pa.RecordBatch]:
        for solve in solves:
            yield from build(plan, solve, compared(solve))

    first_in_train = cache(lambda dataset: _first_in_train(store, *dataset))
    cells = (
        cells_of(plan, solve, artifact, compared(solve), first_in_train(*solve.stage.inputs["dataset"]))
        for solve, artifact in solved()
    )
    written = {
        "cells": _write(folder, "cells", CELLS_SCHEMA, cells),
        "spectra": _write(folder, "spectra", SPECTRA_SCHEMA, (spectra_of(plan, *each) for each in distinct())),
    }
    if plan.sweep.spec.kernel.decomposition == "iterative":
        densities = (densities_of(plan, *each) for each in distinct())
        written["densities"] = _write(folder, "densities", DENSITIES_SCHEMA, densities)
    if plan.sweep.spec.results.predictions:
        written["predictions"] = _write(folder, "predictions", PREDICTIONS_SCHEMA, _predictions(plan, store, solves))
    if plan.sweep.spec.kernel.additions:
        written["additions"] = _write(folder, "additions", ADDITIONS_SCHEMA, additions_of(plan, store))
    if plan.sweep.spec.finetune is not None:
        written["trajectories"] = _write(folder, "trajectories", TRAJECTORIES_SCHEMA, trained(trajectories_of))
        written["updates"] = _write(folder, "updates", UPDATES_SCHEMA, trained(updates_of))
        written["correlations"] = _write(folder, "correlations", CORRELATIONS_SCHEMA, _correlations(folder))
    if plan.combinations:
        written["combinations"] = _write(folder, "combinations", COMBINATIONS_SCHEMA, combinations_rows(plan, store))
    n_cells = sum(finished_cells(plan, solve, finished["compare"]) for solve in solves)
    complete = n_cells == plan.n_cells and not unfilled
    manifest = {"plan": plan.plan_id, "complete": complete, "cells": n_cells, "tables": written}
    write_manifest(folder, manifest)
    return n_cells


def finished_cells(plan: Plan, solve: Solve, compared: Set[str]) -> int:
    """Return how many cells of a finished solve stage have all that they are to have, training included."""
    if not solve.comparisons:
        return len(solve.layer_sets) * len(plan.lambdas)
    return sum(each.count for each in solve.comparisons if each.stage.stage_id in compared)


def _predictions(plan: Plan, store: ArtifactStore, solves: list[Solve]) -> Iterator[pa.RecordBatch]:
    for solve in solves:
        (dataset,) = solve.stage.inputs["dataset"]
        rows = np.array(store.open(*dataset).array("eval.rows"))
        yield from predictions_of(plan, solve, store.read("solve", solve.stage.stage_id), rows)


def _first_in_train(store: ArtifactStore, kind: str, stage_id: str) -> dict[str, np.ndarray]:
    dataset = store.open(kind, stage_id)
    return {split: np.array(dataset.array(f"{split}.first_in_train")) for split in ("train", "eval")}


def _correlations(folder: ResultsFolder) -> Iterator[pa.RecordBatch]:
    yield correlations_of(pq.read_table(folder.tables / "cells" / PART, columns=list(CELL_COLUMNS)))


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
