"""Time and size of the report of a sweep with very many cells.

    python benchmarks/report.py [--cells 100000] [--repeats 3]

The sweep is that of `benchmarks/bookkeeping.py`: 298 layer sets, 48 lambdas, and as many seeds as it takes. Its
artifacts are made up, and all numbers of its cells equal; here losses, metrics and kernels are drawn at random,
for equal numbers make small pages. The command is the real one, in a process of its own. Limits for 100,000 cells: 10 s
of a processor and 10 MB.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bookkeeping import publish_made_up, write_inputs, write_spec

from orchestrator.results.tables.manifest import PART, facts_of, read_manifest, write_manifest
from orchestrator.sweep.folder import ResultsFolder


def draw_numbers(results: Path) -> int:
    """Give the cells numbers that differ; return how many cells there are."""
    folder = ResultsFolder(results)
    manifest = read_manifest(folder)
    assert manifest is not None
    path = folder.tables / "cells" / PART
    cells = pq.read_table(path)
    draw = np.random.default_rng(0)
    for name in (
        "eval_loss",
        "train_loss",
        "eval_accuracy",
        "trace",
        "effective_rank",
        "condition_number_relative_sigma",
    ):
        values = pa.array(draw.uniform(0.1, 0.9, len(cells)))
        cells = cells.set_column(cells.schema.get_field_index(name), cells.schema.field(name), values)
    pq.write_table(cells, path)
    manifest["tables"]["cells"] = facts_of(path, len(cells))
    write_manifest(folder, manifest)
    return len(cells)


def timed(*command: str) -> tuple[float, float]:
    """Return seconds of a processor, and those on the clock, that a command takes."""
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="where to keep the page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_inputs(folder)
        publish_made_up(write_spec(folder, arguments.cells))
        results = folder / f"results-{arguments.cells}"
        n_cells = draw_numbers(results)
        command = [sys.executable, "-m", "orchestrator", "report", str(results)]
        print(f"{'cells':>8} {'processor s':>12} {'clock s':>8} {'MB':>6}")
        for _ in range(arguments.repeats):
            used, passed = timed(*command)
            size = (results / "report.html").stat().st_size / 1e6
            print(f"{n_cells:>8} {used:>12.2f} {passed:>8.2f} {size:>6.2f}")
        if arguments.keep is not None:
            shutil.copy(results / "report.html", arguments.keep)


if __name__ == "__main__":
    main()
