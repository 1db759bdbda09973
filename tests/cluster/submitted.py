"""A small sweep that tests submit to the development cluster, and what they look at afterwards."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from slurm.devcluster import DevCluster
from tests.faults.driving import count_events
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

    def __init__(self, cluster: DevCluster, folder: Path, model: Path, changes: Mapping[str, Any] | None = None) -> None:
        self.cluster = cluster
        self.folder = folder
        self.results = folder / "results"
        self.spec = make_sweep(folder, SWEEP | dict(changes or {}), model=model)

    def profile(self, **changes: Any) -> Path:
        """Write a profile with some keys changed; return its path."""
        path = self.folder / "profile.yaml"
        path.write_text(yaml.safe_dump(PROFILE | {"shared_scratch": [str(self.folder)]} | changes))
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


def wait_until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until something is true, looking often."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
