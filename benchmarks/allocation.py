"""Cost of a stage beside its mathematics in a Slurm allocation, and of the same work as a job for each cell.

    python -m benchmarks.allocation [--cells 10000] [--jobs 200]

Brings up a development cluster (root, Debian's Slurm packages) and runs cells that compute nothing, one stage each,
twice: through one allocation of one node with two workers (claim, run, publish with its fsync, journal, give back), and
as one submitit job for each cell, of which a sample is enough. Limits: 500 cells a second, 20 ms for a stage.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import submitit

from orchestrator.engine.executors import ray_workers
from orchestrator.engine.executors.joined_ray import JoinedRay
from orchestrator.engine.schedule import Schedule
from orchestrator.stages.context.work import Product, Work
from orchestrator.store.journal import read_journals
from orchestrator.store.stage import Stage, StageKind
from orchestrator.sweep.folder import ResultsFolder
from slurm.devcluster import DevCluster
from slurm.profile.profile import Profile
from slurm.submit.allocation import NODE_LOGS
from slurm.submit.submission import Request, submit_allocations
from tests.orchestrator.sweeps import sweep_of


@dataclass(frozen=True)
class NothingParameters:
    """Parameters of a stage that computes nothing: the cell that it stands for."""

    cell: int


NOTHING = StageKind(
    name="nothing", parameters=NothingParameters, version=1, meaning="nothing", module="benchmarks.allocation"
)
WORKERS = 2
ROOT = Path(__file__).resolve().parents[1]


def compute(stage: Stage, work: Work) -> Product:
    """Compute nothing."""
    return Product({"cell": stage.parameters.cell})


class Silence:
    """Takes progress and keeps quiet."""

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None: ...

    def advance(self, kind: str) -> None: ...

    def note(self, message: str) -> None: ...


def drive(folder: ResultsFolder, cells: int) -> None:
    """Work the cells off on the Ray of this allocation, as the driver of a sweep does, and write how long it took."""
    stages = [Stage(NOTHING, NothingParameters(cell)) for cell in range(cells)]
    plan: Any = SimpleNamespace(stages=stages)
    with ray_workers.RayExecutor(sweep_of(), folder, JoinedRay(Path(os.environ[NODE_LOGS]))) as executor:
        while executor.capacity < WORKERS:
            executor.next_outcome(None)
        started = time.perf_counter()
        report = Schedule(plan, folder.artifacts(), executor, Silence(), stages, leave_after=120).run()
        seconds = time.perf_counter() - started
    (folder.root / "seconds.json").write_text(json.dumps({"seconds": seconds, "computed": report.computed}))


def through_one_allocation(folder: ResultsFolder, cells: int) -> dict[str, float]:
    """Submit one allocation and return its figures."""
    profile = Profile.model_validate({
        "nodes": 1, "tasks_per_node": WORKERS, "cpus_per_task": 1, "memory": "3GB", "time_limit": "30m",
    })  # fmt: skip
    logs = folder.logs / "slurm"
    logs.mkdir(parents=True)
    (folder.root / "spec.yaml").touch()
    driver = ("-m", "benchmarks.allocation", "--drive", str(folder.root), "--cells", str(cells))
    request = Request(profile, "nothing", folder.root, logs, driver, ("-c", "pass"))
    began = time.perf_counter()
    wait_for(submit_allocations(request, 1))
    facts = json.loads((folder.root / "seconds.json").read_text())
    assert facts["computed"] == cells
    spent = [event["seconds"] for event in read_journals(folder.journals) if event["event"] == "finished"]
    return {
        "cells_per_second": cells / facts["seconds"],
        "stage_milliseconds": 1000 * WORKERS * facts["seconds"] / cells,
        "journalled_milliseconds": 1000 * sum(spent) / len(spent),
        "with_start_and_end_of_the_job": time.perf_counter() - began,
    }


def wait_for(job: str) -> None:
    """Wait until a job is gone from the queue."""
    while subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True, check=False).stdout.strip():
        time.sleep(0.5)


def as_jobs(folder: Path, jobs: int) -> dict[str, float]:
    """Run a job for each cell through submitit and return its figures."""
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(time=5, mem="200M", cpus_per_task=1, ntasks_per_node=1, wckey=None)
    began = time.perf_counter()
    submitted = executor.map_array(abs, range(jobs))
    wait_for(submitted[0].job_id.partition("_")[0])
    seconds = time.perf_counter() - began
    assert [job.result() for job in submitted] == list(range(jobs))
    return {"cells_per_second": jobs / seconds, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(ResultsFolder(options.drive), options.cells)
    elif options.inside:
        one = through_one_allocation(ResultsFolder(options.inside / "results"), options.cells)
        print(f"{options.cells} cells through one allocation, {WORKERS} workers:")
        print(json.dumps(one, indent=1))
        print(f"{options.jobs} cells as one submitit job each:")
        print(json.dumps(as_jobs(options.inside / "jobs", options.jobs), indent=1))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            cluster = DevCluster.up(Path(temporary) / "cluster", tied=True)
            try:
                command = [sys.executable, "-m", "benchmarks.allocation", "--inside", str(Path(temporary) / "work")]
                counts = ["--cells", str(options.cells), "--jobs", str(options.jobs)]
                environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # of the jobs too, wherever they run
                subprocess.run(cluster.command([*command, *counts], cwd=ROOT), check=True, env=environment)
            finally:
                cluster.down()


if __name__ == "__main__":
    main()
