"""A small sweep that tests submit to the development cluster, and what they look at afterwards."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from orchestrator.store.journal import read_journals
from slurm.devcluster import DevCluster
from tests.cluster.ray_jobs import processes
from tests.faults.driving import count_events
from tests.faults.journal_proof import Proof, prove_nothing_was_computed_twice
from tests.faults.tables import assert_same_tables
from tests.orchestrator.sweeps import make_sweep

NTKSWEEP = Path(sys.executable).with_name("ntksweep")
SECONDS = 300
"""No sweep of these tests takes so long, whatever happens to it; one that does hangs."""

SWEEP = {
    "model.dtype": "float32",
    "grid.lambdas": {"values": [0.01, 0.1, 1.0]},
    "grid.layer_sets": ["each_layer", "all_layers", {"groups": [["head"]]}],
    "grid.seeds": list(range(8)),
    "grid.n_train": [12],
    "results.predictions": True,
    "compute.executor": "ray",
}
"""Some two hundred stages, so that there is time to disturb them."""

PROFILE = {
    "partition": "main", "nodes": 1, "tasks_per_node": 1, "cpus_per_task": 1, "memory": "1500MB", "object_store": "80MB",
    "time_limit": "10m", "signal_seconds": 60,
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

    def ntksweep(self, *arguments: str | Path, check: bool = True, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command of ntksweep on the cluster's login node."""
        return self.cluster.run([NTKSWEEP, *arguments], cwd=self.folder, check=check, timeout=SECONDS, **options)

    def submit(self, *arguments: str, check: bool = True, **profile: Any) -> "subprocess.CompletedProcess[str]":
        """Submit the sweep with a profile that has some keys changed."""
        return self.ntksweep("submit", self.spec, "--profile", self.profile(**profile), "--yes", *arguments, check=check)

    def status(self) -> dict[str, Any]:
        """Return what `status --json` says."""
        return dict(json.loads(self.ntksweep("status", self.results, "--json", check=False).stdout))

    def wait(self) -> int:
        """Wait until no allocation is left; return the exit status of `wait`, 0 if the sweep is complete."""
        return self.ntksweep("wait", self.results, "--timeout", str(SECONDS), check=False).returncode

    def wait_for_events(self, count: int) -> None:
        """Wait until the journals hold so many events."""
        wait_until(lambda: count_events(self.results) >= count)

    def jobs(self) -> list[str]:
        """Return the numbers of the sweep's jobs that Slurm has queued or running."""
        return self.cluster.run(["squeue", "--noheader", "--array", "--format=%i"]).stdout.split()


    def workers(self) -> list[int]:
        """Return the processes, as numbered inside the cluster, that have computed stages and are alive."""
        alive = processes(self.cluster).keys()
        journals = {event["journal"] for event in read_journals(self.results / "journal") if "stage" in event}
        return sorted({int(name.rsplit("-", 2)[1]) for name in journals} & alive)

    def ended_as_if_nothing_had_been(self, expected: Mapping[str, pa.Table]) -> Proof:
        """Check the tables, the journals and that no claim is left; return what the journals say."""
        assert_same_tables(self.results, dict(expected))
        assert list((self.results / "claims").iterdir()) == []
        assert not [path for path in self.results.rglob(".*") if path.is_file()]
        return prove_nothing_was_computed_twice(self.results)


def wait_until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until something is true, looking often."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
