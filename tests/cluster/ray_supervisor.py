"""The batch process of a test's allocation: keeps a RayCluster up until a file says to stop.

`python -m tests.cluster.ray_supervisor FOLDER SETTINGS`, SETTINGS as JSON. In FOLDER it writes ready.json (the driver's
environment), events.jsonl (what happened to the nodes) and ended.json (how it ended).
"""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from slurm.ray.cluster import HeadLostError, RayCluster, RaySettings, RayStartError


def main() -> None:
    folder = Path(sys.argv[1])
    given = json.loads(sys.argv[2])
    settings = RaySettings(**{**given, "local_scratch": Path(given["local_scratch"]), "python": tuple(given["python"])})
    cluster = RayCluster(settings, folder / "logs")
    began = time.monotonic()
    error = ""
    try:
        with cluster:
            _write(folder / "ready.json", cluster.environment, pid=str(os.getpid()), seconds=time.monotonic() - began)
            while not (folder / "stop").exists():
                with (folder / "events.jsonl").open("a") as events:
                    events.writelines(json.dumps(asdict(event)) + "\n" for event in cluster.poll())
                time.sleep(0.1)
            began = time.monotonic()
    except (RayStartError, HeadLostError) as raised:
        error = f"{type(raised).__name__}: {raised}"
    ended_nodes = list(cluster.ended_nodes)
    _write(folder / "ended.json", {}, error=error, ended_nodes=ended_nodes, seconds=time.monotonic() - began)


def _write(path: Path, environment: dict[str, str], **content: object) -> None:
    whole = path.with_suffix(".part")
    whole.touch(mode=0o600)
    whole.write_text(json.dumps({"environment": environment, **content}))
    whole.rename(path)


if __name__ == "__main__":
    main()
