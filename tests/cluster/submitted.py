"""A small sweep that tests submit to the development cluster, and what they look at afterwards."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from orchestrator.cluster.records import read_submissions
from orchestrator.plan.plan import make_plan
from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys
from slurm.devcluster import DevCluster
from tests.cluster.ray_jobs import pids_of, processes
from tests.cluster.waiting import SECONDS, wait_until
from tests.faults.driving import count_events
from tests.faults.journal_proof import Proof, prove_nothing_was_computed_twice
from tests.faults.tables import assert_same_tables
from tests.orchestrator.sweeps import make_sweep

NTKSWEEP = Path(sys.executable).with_name("ntksweep")
SWEEP = {
    "model.dtype": "float32",
    "grid.lambdas": {"values": [0.01, 0.1, 1.0]},
    "grid.layer_sets": ["each_layer", "all_layers", {"groups": [["head"]]}],
    "grid.seeds": list(range(5)),
    "grid.n_train": [12],
    "results.predictions": True,
    "compute.executor": "ray",
}
"""Some hundred stages, so that there is time to disturb them."""

PROFILE = {
    "partition": "main", "nodes": 1, "tasks_per_node": 1, "cpus_per_task": 1, "memory": "1500MB",
    "object_store": "80MB", "time_limit": "10m", "signal_seconds": 60,
}  # fmt: skip
"""An allocation as small as Ray lets it be."""


class Submitted:
    """A sweep in a folder of its own, and the commands of a user who sends it to a cluster."""

    def __init__(
        self,
        cluster: DevCluster,
        folder: Path,
        model: Path,
        changes: Mapping[str, Any] | None = None,
        *,
        scratch: Path = Path("/tmp"),
    ) -> None:
        self.cluster = cluster
        self.scratch = scratch
        self.folder = folder
        self.results = folder / "results"
        self.spec = make_sweep(folder, SWEEP | dict(changes or {}), model=model)

    def profile(self, **changes: Any) -> Path:
        """Write a profile with some keys changed; return its path."""
        path = self.folder / "profile.yaml"
        folders = {"shared_scratch": [str(self.folder)], "local_scratch": str(self.scratch)}
        path.write_text(yaml.safe_dump(PROFILE | folders | changes))
        return path

    def ntksweep(
        self, *arguments: str | Path, check: bool = True, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command of ntksweep on the cluster's login node."""
        return self.cluster.run([NTKSWEEP, *arguments], cwd=self.folder, check=check, timeout=SECONDS, **options)

    def submit(self, *arguments: str, check: bool = True, **profile: Any) -> "subprocess.CompletedProcess[str]":
        """Submit the sweep with a profile that has some keys changed."""
        return self.ntksweep(
            "submit", self.spec, "--profile", self.profile(**profile), "--yes", *arguments, check=check
        )

    def status(self) -> dict[str, Any]:
        """Return what `status --json` says."""
        return dict(json.loads(self.ntksweep("status", self.results, "--json", check=False).stdout))

    def wait(self) -> int:
        """Wait until no allocation is left; return the exit status of `wait`, 0 if the sweep is complete."""
        return self.ntksweep("wait", self.results, "--timeout", str(SECONDS), check=False).returncode

    def wait_for_events(self, count: int) -> None:
        """Wait until the journals hold so many events; fail with its log if an allocation fails before."""
        wait_until(lambda: count_events(self.results) >= count or "triggered an exception" in self.log())
        assert count_events(self.results) >= count, self.log()

    def jobs(self) -> list[str]:
        """Return the numbers of the sweep's jobs that Slurm has queued or running."""
        return self.cluster.run(["squeue", "--noheader", "--array", "--format=%i"]).stdout.split()

    def job(self) -> str:
        """Return the number of its newest job."""
        return read_submissions(ResultsFolder(self.results))[-1].jobs[-1]

    @contextmanager
    def held(self, kind: str) -> Iterator[None]:
        """Keep the stages of a kind from being computed, as another run would that is at them; the sweep cannot end.

        Enter it before any of them is begun.
        """
        folder = ResultsFolder(self.results)
        sweep, claims = folder.existing(), folder.claims()
        stages = make_plan(sweep, surveys(sweep, folder.artifacts())).stages
        held = [claims.take(stage.stage_id) for stage in stages if stage.kind == kind]
        try:
            assert held
            assert None not in held
            yield
        finally:
            for claim in held:
                if claim is not None:
                    claims.release(claim)

    def driver(self) -> int:
        """Return the process that works the plan off in an allocation."""
        return pids_of(self.cluster, "orchestrator.cluster.driver", str(self.results))[0]

    def supervisor(self) -> int:
        """Return the batch process of an allocation."""
        return pids_of(self.cluster, "submitit.core._submit", str(self.results))[0]

    def log(self) -> str:
        """Return what its allocations wrote, the oldest first."""
        paths = sorted((self.results / "logs/slurm").glob("*/*_log.*"), key=lambda path: path.stat().st_mtime)
        return "\n".join(path.read_text() for path in paths)

    def hosts(self) -> list[str]:
        """Return the nodes on which stages were begun, in the order in which the first of each was."""
        journals = (event["journal"] for event in read_journals(self.results / "journal") if "stage" in event)
        return list(dict.fromkeys(journal.rsplit("-", 2)[0] for journal in journals))

    def workers(self) -> list[int]:
        """Return the processes, as numbered inside the cluster, that have computed stages and are alive."""
        alive = processes(self.cluster).keys()
        journals = {event["journal"] for event in read_journals(self.results / "journal") if "stage" in event}
        return sorted({int(name.rsplit("-", 2)[1]) for name in journals} & alive)

    def ended_as_if_nothing_had_been(self, expected: Mapping[str, pa.Table]) -> Proof:
        """Check the tables, the journals and that no claim is left; return what the journals say."""
        assert_same_tables(self.results, dict(expected))
        assert list((self.results / "claims").iterdir()) == []
        # Among the logs submitit leaves hidden files of its own.
        hidden = {path.relative_to(self.results).parts[0] for path in self.results.rglob(".*") if path.is_file()}
        assert hidden <= {"logs"}
        return prove_nothing_was_computed_twice(self.results)
