"""Allocations in which Ray runs, for tests: submit them, connect to them, look at what is left of them."""

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slurm.devcluster import DevCluster
from tests.cluster.waiting import wait_until
from tests.root import ROOT

WHO_IS_ALIVE = """
import json, os, ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
print(json.dumps([node for node in ray.nodes() if node["Alive"]]))
"""

ON_EVERY_WORKER = """
import json, os, ray, time
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
resources = ray.cluster_resources()
@ray.remote(num_cpus=1, num_gpus=resources.get("GPU", 0) / resources["CPU"])
class Worker:
    def look(self):
        print("seen by a worker")
        return dict(os.environ)
workers = [Worker.remote() for _ in range(int(resources["CPU"]))]
print(json.dumps(ray.get([worker.look.remote() for worker in workers])))
"""


class RayJob:
    """An allocation whose batch process is `tests.cluster.ray_supervisor`."""

    def __init__(self, cluster: DevCluster, folder: Path, scratch: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.scratch = scratch
        self.job = ""
        self.python: Sequence[str] = (sys.executable,)
        self.user: str | None = None

    def submit(
        self, *options: str, python: Sequence[str] = (sys.executable,), user: str | None = None, gpus: int = 1
    ) -> "RayJob":
        self.python, self.user = python, user
        settings = {
            **{"workers_per_node": 2, "cpus_per_node": 2, "gpus_per_node": gpus, "memory_bytes": 1500 << 20},
            **{"object_store_bytes": 80 << 20, "local_scratch": str(self.scratch), "dashboard": False},
            "python": list(python),
        }
        words = ["exec", *python, "-m", "tests.cluster.ray_supervisor", str(self.folder), json.dumps(settings)]
        self.job = self.cluster.run(
            [
                *("sbatch", "--parsable", "--cpus-per-task=2", f"--gres=gpu:{gpus}", "--mem=1500M", "--no-requeue"),
                *(f"--output={self.folder}/output.txt", f"--wrap={shlex.join(words)}", *options),
            ],
            user=user,
            cwd=ROOT,
            environment={"TMPDIR": "/tmp", "PYTHONPATH": str(ROOT)},
        ).stdout.strip()
        return self

    def ready(self) -> "RayJob":
        wait_until(lambda: (self.folder / "ready.json").exists() or self.has_ended)
        assert (self.folder / "ready.json").exists(), self.output
        return self

    def stop(self) -> dict[str, Any]:
        (self.folder / "stop").touch()
        return self.ended()

    def ended(self) -> dict[str, Any]:
        wait_until(lambda: self.has_ended)
        assert (self.folder / "ended.json").exists(), self.output
        answer: dict[str, Any] = json.loads((self.folder / "ended.json").read_text())
        return answer

    @property
    def has_ended(self) -> bool:
        state = self.cluster.run(["squeue", "--noheader", f"--jobs={self.job}", "--states=all", "--format=%T"]).stdout
        return state.strip() in ("COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY", "NODE_FAIL")

    @property
    def output(self) -> str:
        path = self.folder / "output.txt"
        return path.read_text() if path.exists() else "(no output)"

    @property
    def environment(self) -> dict[str, str]:
        answer: dict[str, str] = self._ready()["environment"]
        return answer

    @property
    def events(self) -> list[tuple[str, str, bool]]:
        path = self.folder / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines]
        return [(event["node"], event["kind"], event["out_of_memory"]) for event in events]

    @property
    def batch_process(self) -> int:
        return int(self._ready()["pid"])

    def driver(self, code: str) -> Any:
        words = ["sh", "-c", shlex.join([*self.python, "-c", code])]
        answer = self.cluster.run(words, user=self.user, cwd=Path("/"), environment=self.environment)
        return json.loads(answer.stdout.splitlines()[0])  # Ray adds what it has to say about nodes

    def _ready(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((self.folder / "ready.json").read_text())
        return answer


def processes(cluster: DevCluster) -> dict[int, str]:
    """Return the processes of a cluster's namespace with their command lines, but for those that look for them."""
    lines = cluster.run(["ps", "-ww", "-eo", "pid=,args="]).stdout.splitlines()
    found = {int(line.split()[0]): line.split(maxsplit=1)[1] for line in lines}
    return {pid: words for pid, words in found.items() if words != "ps -ww -eo pid=,args="}


def pids_of(cluster: DevCluster, *parts: str) -> list[int]:
    """Return the numbers, in order, of the processes whose command lines contain all `parts`."""
    return sorted(pid for pid, words in processes(cluster).items() if all(part in words for part in parts))


def listening(cluster: DevCluster) -> set[str]:
    """Return the addresses on which something listens."""
    return {line.split()[3] for line in cluster.run(["ss", "-Htln"]).stdout.splitlines()}


def kill(cluster: DevCluster, pid: int) -> None:
    """SIGKILL a process of the cluster's namespace."""
    cluster.run(["sh", "-c", f"kill -KILL {pid}"])


@contextmanager
def short_folder() -> Iterator[Path]:
    """Make a folder for temporary files that every user may use, with a path as short as on real nodes."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="nt-") as name:
        Path(name).chmod(0o1777)
        yield Path(name)


def python_for(cluster: DevCluster, user: str) -> list[str] | None:
    """Return a command that starts a Python with these packages as another user; None if there is none."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    plain = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for command in ([sys.executable], ["/usr/bin/env", f"PYTHONPATH={ROOT}:{packages}", plain]):
        # Through a shell, as in a job: what the user may not run is found out when the user runs it.
        words = ["sh", "-c", shlex.join([*command, "-c", "import ray, slurm"])]
        if cluster.run(words, user=user, cwd=Path("/"), check=False).returncode == 0:
            return command
    return None
