"""A finished sweep over every set of four layers, and what its cells say."""

import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.plan.plan import make_plan
from orchestrator.results.selection.criteria import CRITERIA, Criterion
from orchestrator.results.selection.stored import StoredKernels
from orchestrator.stages.base.cells import Solve
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys
from orchestrator.sweep.variant import Variant
from tests.orchestrator.sweeps import rewrite_table

LAYERS = 4

NAMES = [criterion.name for criterion in CRITERIA]

BY_NAME = {criterion.name: criterion for criterion in CRITERIA}

EVERY_SET = [set_ for size in range(1, LAYERS + 1) for set_ in combinations(range(LAYERS), size)]

CHANGES = {
    "grid.layer_sets": [{"subsets": LAYERS}],
    "grid.seeds": [0, 1],
    "kernel.eigenvectors": True,
    # beyond the parameters of no set, so that every kernel is solved from blocks
    "adapter.rank": 3,
}


def folder_of(spec: Path) -> ResultsFolder:
    return ResultsFolder(spec.parent / "results")


def variant_in(folder: ResultsFolder) -> tuple[Variant, tuple[Solve, ...]]:
    """Return the only variant of a sweep and the stages that fill its cells."""
    sweep = folder.existing()
    plan = make_plan(sweep, surveys(sweep, folder.artifacts()))
    (variant,) = plan.variants
    return variant, plan.solves


def kernels_of(spec: Path, seed: int) -> StoredKernels:
    return StoredKernels(*variant_in(folder_of(spec)), folder_of(spec), seed)


def with_cells(spec: Path, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """Return a copy of a results folder whose table of cells was changed."""
    shutil.copytree(folder_of(spec).root, tmp_path / "results")
    (part,) = (tmp_path / "results" / "tables" / "cells").iterdir()
    table = pq.read_table(part)
    changed = pa.Table.from_pandas(change(table.to_pandas()), schema=table.schema, preserve_index=False)
    rewrite_table(tmp_path / "results", "cells", changed)
    return tmp_path / "results"


def best_in_cells(cells: pd.DataFrame, layers: tuple[int, ...], seed: int, criterion: Criterion) -> float:
    """Return the criterion of a set of layers as the table has it."""
    named = [layers_named(name) == layers for name in cells["layer_set"]]
    rows = cells[np.array(named) & (cells["seed"] == seed)]
    assert len(rows) == 2
    return float(rows[criterion.column].max() if criterion.large_is_good else rows[criterion.column].min())


def layers_named(name: str) -> tuple[int, ...]:
    """Take the name of a layer set apart: `layers:0-2,5` is 0, 1, 2, 5."""
    found: list[int] = []
    for part in name.removeprefix("layers:").split(","):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return tuple(found)
