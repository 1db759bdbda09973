"""Scaling of solve stages over workers: 63 layer sets x 100 lambdas at M = 1,000 on MiniLM, one worker against two.

    python benchmarks/workers.py [--repeats 3]

Needs what `make demo` fetches. The stages below are computed once; then the solve stages alone run again and again,
with one and with two Ray workers in turn. The time is that from the first solve stage begun to the last one finished,
as the journals tell it, so the start of Ray does not count.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from statistics import median

from orchestrator.engine.run import run
from orchestrator.spec import Spec
from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder

DATA = Path(__file__).resolve().parents[1] / "examples" / "data"
WORKERS = (1, 2)


class Silent:
    """Progress that nobody watches."""

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None: ...
    def advance(self, kind: str) -> None: ...
    def note(self, message: str) -> None: ...


def spec_for(folder: Path, workers: int) -> Spec:
    return Spec.model_validate({
        "name": "workers",
        "model": {"path": "minilm"},
        "task": {
            "data": "amazon.parquet", "label": "rating", "kind": "classification", "sign_cut": 0.5, "max_length": 64,
            "n_eval": 300,
        },
        "adapter": {"target_modules": ["query", "value"]},
        "head": {"in_kernel": False},
        "kernel": {"outputs": "margin"},
        "grid": {
            "lambdas": {"logspace": {"start": 1e-6, "stop": 1.0, "count": 100}, "scale": "trace"},
            "layer_sets": [{"subsets": 6}], "n_train": [1000],
        },
        "compute": {"executor": "ray", "workers": workers},
        "results": {"folder": str(folder)},
    })  # fmt: skip


def solve_seconds(folder: Path, workers: int) -> float:
    """Compute all solve stages anew; return the seconds from the first begun to the last finished."""
    for part in ("artifacts/solve", "journal", "tables"):
        shutil.rmtree(folder / part, ignore_errors=True)
    run(spec_for(folder, workers), DATA, Silent())
    events = [event for event in read_journals(ResultsFolder(folder).journals) if event.get("kind") == "solve"]
    # Workers load their libraries with their first stage: leave each worker's first stage out.
    first = {event["journal"]: event["time"] for event in reversed(events) if event["event"] == "finished"}
    begun = max(first.values())
    finished = [event["time"] for event in events if event["event"] == "finished"]
    counted = sum(time > begun for time in finished)
    return (max(finished) - begun) / counted * len(finished)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "results"
        run(spec_for(folder, 2), DATA, Silent())
        seconds: dict[int, list[float]] = {workers: [] for workers in WORKERS}
        for _ in range(repeats):
            for workers in WORKERS:
                seconds[workers].append(solve_seconds(folder, workers))
    for workers, times in seconds.items():
        print(f"{workers} workers: median {median(times):.2f} s, {min(times):.2f}-{max(times):.2f}")
    ratios = [one / two for one, two in zip(*(seconds[workers] for workers in WORKERS), strict=True)]
    print(f"speed-up of two workers: median {median(ratios):.2f}, {min(ratios):.2f}-{max(ratios):.2f}")


if __name__ == "__main__":
    main()
