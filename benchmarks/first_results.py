"""How soon a run shows results: its first complete cell, the first tables with cells, and what it takes as a whole.

    python benchmarks/first_results.py [--repeats 3] [--checkouts . ../other] [--executor ray] [--only trained]

Three sweeps of MiniLM: the grid of the README (`kernels`), one of ten seeds and fewer sentences (`seeds`), and one
whose cells are trained (`trained`). Needs what `make demo` fetches. The checkouts take turns. Times are shares of the
run, from the first stage begun to the run's end as the journals have them, so that the start of Python does not count.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "examples" / "data"

BASE: Mapping[str, Any] = {
    "model": {"path": str(DATA / "minilm")},
    "task": {
        "data": str(DATA / "amazon.parquet"), "label": "rating", "kind": "classification", "sign_cut": 0.5,
        "max_length": 32, "n_eval": 100,
    },
    "adapter": {"target_modules": ["query", "value"]},
    "head": {"in_kernel": False},
    "kernel": {"outputs": "margin"},
}  # fmt: skip

LAMBDAS = {"logspace": {"start": 1e-3, "stop": 10.0, "count": 4}, "scale": "trace"}
TWO = {"values": [0.1, 1.0], "scale": "trace"}
SETS = ["each_layer", "prefixes", "suffixes"]

SWEEPS: Mapping[str, Mapping[str, Any]] = {
    "kernels": {"grid": {"lambdas": LAMBDAS, "layer_sets": SETS, "seeds": [0, 1], "n_train": [400]}},
    "seeds": {"grid": {"lambdas": LAMBDAS, "layer_sets": SETS, "seeds": list(range(10)), "n_train": [100]}},
    "trained": {
        "task": {**BASE["task"], "n_eval": 50, "max_length": 16},
        "grid": {"lambdas": TWO, "layer_sets": ["each_layer", "all_layers"], "seeds": [0, 1], "n_train": [48]},
        "finetune": {"learning_rate": 3e-3, "epochs": 3, "batch_size": 8, "num_evaluations": 2},
    },
}


@dataclass(frozen=True)
class Measured:
    """One run: seconds of the whole, and until the first complete cell, a tenth of the cells, and the first tables."""

    whole: float
    first: float
    tenth: float
    tables: float


def measured(checkout: Path, sweep: str, executor: str, folder: Path) -> Measured:
    """Run a sweep with a checkout."""
    spec = {**BASE, **SWEEPS[sweep], "name": sweep, "compute": {"executor": executor, "workers": 2, "threads": 1}}
    path = folder / "sweep.yaml"  # JSON is YAML
    path.write_text(json.dumps({**spec, "results": {"folder": str(folder / "results")}}))
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "NTKSWEEP_CACHE": ""}
    manifest, seen, over = folder / "results" / "tables" / "manifest.json", [0.0], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            if manifest.exists():
                seen[0] = time.time()
                return

    thread = threading.Thread(target=look)
    thread.start()
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "run", str(path), "--json"]
    subprocess.run(command, env=environment, check=True, capture_output=True, cwd=folder)
    ended = time.time()
    over.set()
    thread.join()
    events = list(journal_of(folder / "results"))
    begun = min(event["time"] for event in events if event["event"] == "started")
    last = max(event["time"] for event in events if event["event"] == "run")
    times = sorted(cell_times(folder / "results", events))
    return Measured(last - begun, times[0] - begun, times[len(times) // 10] - begun, (seen[0] or ended) - begun)


def journal_of(results: Path) -> Iterator[dict[str, Any]]:
    for path in (results / "journal").glob("*.jsonl"):
        yield from map(json.loads, path.read_text().splitlines())


def cell_times(results: Path, events: list[dict[str, Any]]) -> Iterator[float]:
    """Yield for each cell the time at which the last stage that fills it was finished."""
    finished = {event["stage"]: event["time"] for event in events if event["event"] == "finished"}
    plan = json.loads((results / "plan.json").read_text())
    for problem in plan["problems"]:
        division = plan["divisions"][problem["division"]]
        compared = problem.get("comparisons", [[]] * len(problem["stages"]))
        for solve, sets, each in zip(problem["stages"], division, compared, strict=True):
            if not each:
                yield from [finished[solve]] * (len(plan["lambdas"]) * len(sets))
            for stage, _, _, count, *_ in each:
                yield from [max(finished[solve], finished[stage])] * count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--checkouts", type=Path, nargs="+", default=[Path(__file__).resolve().parents[1]])
    parser.add_argument("--executor", default="ray")
    parser.add_argument("--only", nargs="+", default=list(SWEEPS), choices=SWEEPS)
    arguments = parser.parse_args()
    for sweep in arguments.only:
        found: dict[Path, list[Measured]] = {checkout.resolve(): [] for checkout in arguments.checkouts}
        for _ in range(arguments.repeats):
            for checkout, runs in found.items():
                with tempfile.TemporaryDirectory() as temporary:
                    runs.append(measured(checkout, sweep, arguments.executor, Path(temporary)))
        for checkout, runs in found.items():
            print(f"{sweep}, {arguments.executor}, {checkout.name}: whole run {said([run.whole for run in runs])} s")
            for what in ("first", "tenth", "tables"):
                shares = [getattr(run, what) / run.whole for run in runs]
                print(f"  {TOLD[what]} after {said(shares)} of it", flush=True)


TOLD = {"first": "first complete cell", "tenth": "a tenth of the cells", "tables": "first tables"}


def said(values: list[float]) -> str:
    """Return the median of some values, with the smallest and the largest."""
    return f"{median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


if __name__ == "__main__":
    main()
