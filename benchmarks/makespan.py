"""Time of whole plans on workers that only pretend to compute: what the order of stages costs, without noise.

    python benchmarks/makespan.py [--checkouts . ../other]

The schedule of a checkout hands the stages of a plan to 1, 2, 8 or 32 workers, on which each kind of stage takes about
the time that it takes in the sweep `trained` of benchmarks/first_results.py. Told are the time of all of it beside the
least that is possible without gaps, and the share of it after which the first cell is complete.
"""

import argparse
import heapq
import os
import subprocess
import sys
import tempfile
from inspect import signature
from pathlib import Path
from typing import Any

SECONDS = {
    "dataset": 0.1, "batching": 2.0, "capture": 1.5, "gram": 0.5, "solve": 0.1, "finetune": 6.0, "compare": 0.3,
}  # fmt: skip

TRAINED = {
    "finetune": {"learning_rate": 0.01, "epochs": 3, "batch_size": 4, "num_evaluations": 2, "stacked_cells": 4},
    "grid.lambdas": {"values": [0.1, 1.0, 10.0, 100.0]},
}

PLANS: dict[str, dict[str, Any]] = {
    "trained, 2 seeds": {**TRAINED, "grid.seeds": [0, 1]},
    "trained, 10 seeds": {**TRAINED, "grid.seeds": list(range(10))},
    "kernels, 3 seeds": {"grid.seeds": [0, 1, 2], "compute.rows": "resident"},
    "kernels, 10 seeds": {"grid.seeds": list(range(10)), "compute.rows": "resident"},
}

WORKERS = (1, 2, 8, 32)


class Pretended:
    """An executor whose stages take the time of their kind."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.now = 0.0
        self.finished: dict[str, float] = {}
        self._going: list[tuple[float, int, Any]] = []
        self._count = 0

    def submit(self, stage: Any, attempt: int, halvings: int) -> None:
        self._count += 1
        heapq.heappush(self._going, (self.now + SECONDS[stage.kind], self._count, stage))

    def stop(self) -> None: ...

    def next_outcome(self, timeout: float | None) -> Any:
        from orchestrator.stages.context.failures import Outcome, Status

        if not self._going:
            return None
        self.now, _, stage = heapq.heappop(self._going)
        self.finished[stage.stage_id] = self.now
        return stage, Outcome(Status.FINISHED)


class Silent:
    """Progress that nobody watches."""

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None: ...
    def advance(self, kind: str) -> None: ...
    def note(self, message: str) -> None: ...


def show() -> None:
    from orchestrator.engine.schedule import Schedule
    from orchestrator.store.artifacts import ArtifactStore
    from tests.orchestrator.sweeps import groups_of, plan_of, survey_of

    for name, changes in PLANS.items():
        grid = {"grid.layer_sets": ["each_layer", "prefixes"], "grid.n_train": [64], "compute.shard_examples": 16}
        plan = plan_of({**grid, **changes}, survey=survey_of(groups=groups_of(12, ("query", "value"))))
        work = sum(SECONDS[stage.kind] for stage in plan.stages)
        for workers in WORKERS:
            executor = Pretended(workers)
            with tempfile.TemporaryDirectory() as folder:
                arguments = (plan, ArtifactStore(Path(folder)), executor, Silent(), list(plan.stages))
                known = {"workers": workers} if "workers" in signature(Schedule).parameters else {}
                Schedule(*arguments, **known).run()
            cells = [max(executor.finished[stage.stage_id] for stage in (solve.stage, comparison.stage))
                     for solve in plan.solves for comparison in solve.comparisons or (solve,)]  # fmt: skip
            print(
                f"{name}, {workers} workers: {executor.now:.1f} s, {executor.now * workers / work:.3f} of the least, "
                f"first cell after {min(cells) / executor.now:.3f}, a tenth after "
                f"{sorted(cells)[len(cells) // 10] / executor.now:.3f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkouts", type=Path, nargs="+", default=[Path(__file__).resolve().parents[1]])
    parser.add_argument("--show", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.show:
        show()
        return
    for checkout in arguments.checkouts:
        print(checkout.resolve().name, flush=True)
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
        subprocess.run([sys.executable, "-P", __file__, "--show"], env=environment, cwd=checkout, check=True)


if __name__ == "__main__":
    main()
