"""Collecting the tables of all finished stages, which are replaced in one step, so that none is seen incomplete."""

import time
from collections.abc import Callable, Iterator, Mapping, Set
from functools import cache

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from orchestrator.plan.plan import Plan
from orchestrator.results.tables.additions import ADDITIONS_SCHEMA, additions_of, unfinished_additions
from orchestrator.results.tables.build import (
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
from orchestrator.results.tables.combinations import COMBINATIONS_SCHEMA, combinations_rows, unfinished_combinations
from orchestrator.results.tables.correlations import CELL_COLUMNS, CORRELATIONS_SCHEMA, correlations_of
from orchestrator.results.tables.manifest import CLAIM, cells_in_complete_tables
from orchestrator.results.tables.parts import NewTables
from orchestrator.stages.base.cells import Solve
from orchestrator.stages.combine.plan import Combination
from orchestrator.store.artifacts import Artifact, ArtifactStore
from orchestrator.sweep.folder import ResultsFolder

BuildTrained = Callable[[Plan, Solve, Mapping[str, Artifact]], Iterator[pa.RecordBatch]]

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


def _collect(plan: Plan, folder: ResultsFolder, new: NewTables) -> int:
    from orchestrator.results.tables.paths import paths_of  # loads much that `plan` and `status` need not wait for

    store = folder.artifacts()
    finished = {kind: store.finished(kind) for kind in ("solve", "compare")}
    # Before the rest, because other runs may finish some meanwhile.
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
        cells_of(
            plan,
            solve,
            artifact,
            compared(solve),
            first_in_train(*solve.stage.inputs["dataset"]),
            paths=paths_of(plan, solve, artifact, _dataset(store, solve)),
        )
        for solve, artifact in solved()
    )
    new.write("cells", CELLS_SCHEMA, cells)
    new.write("spectra", SPECTRA_SCHEMA, (spectra_of(plan, *each) for each in distinct()))
    if plan.sweep.spec.kernel.decomposition == "iterative":
        densities = (densities_of(plan, *each) for each in distinct())
        new.write("densities", DENSITIES_SCHEMA, densities)
    if plan.sweep.spec.results.predictions:
        new.write("predictions", PREDICTIONS_SCHEMA, _predictions(plan, store, solves))
    if plan.sweep.spec.kernel.additions:
        new.write("additions", ADDITIONS_SCHEMA, additions_of(plan, store))
    if plan.sweep.spec.finetune is not None:
        new.write("trajectories", TRAJECTORIES_SCHEMA, trained(trajectories_of))
        new.write("updates", UPDATES_SCHEMA, trained(updates_of))
        new.write("correlations", CORRELATIONS_SCHEMA, _correlations(new))
    if plan.filled_by(Combination):
        new.write("combinations", COMBINATIONS_SCHEMA, combinations_rows(plan, store))
    n_cells = sum(finished_cells(plan, solve, finished["compare"]) for solve in solves)
    complete = n_cells == plan.n_cells and not unfilled
    sweep = plan.sweep.spec.name
    new.publish({"sweep": sweep, "plan": plan.plan_id, "complete": complete, "cells": n_cells})
    return n_cells


def finished_cells(plan: Plan, solve: Solve, compared: Set[str]) -> int:
    """Return the number of complete cells of a finished solve stage, training included."""
    if not solve.comparisons:
        return len(solve.layer_sets) * len(plan.lambdas)
    return sum(each.count for each in solve.comparisons if each.stage.stage_id in compared)


def _predictions(plan: Plan, store: ArtifactStore, solves: list[Solve]) -> Iterator[pa.RecordBatch]:
    from orchestrator.results.tables.paths import paths_of

    for solve in solves:
        dataset = _dataset(store, solve)
        paths = paths_of(plan, solve, store.read("solve", solve.stage.stage_id), dataset)
        yield from predictions_of(plan, solve, paths=paths, rows=np.array(dataset.array("eval.rows")))


def _dataset(store: ArtifactStore, solve: Solve) -> Artifact:
    (dataset,) = solve.stage.inputs["dataset"]
    return store.open(*dataset)


def _first_in_train(store: ArtifactStore, kind: str, stage_id: str) -> dict[str, np.ndarray]:
    dataset = store.open(kind, stage_id)
    return {split: np.array(dataset.array(f"{split}.first_in_train")) for split in ("train", "eval")}


def _correlations(new: NewTables) -> Iterator[pa.RecordBatch]:
    yield correlations_of(new.read("cells", list(CELL_COLUMNS)))
