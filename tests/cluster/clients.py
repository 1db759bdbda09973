"""The programs of a development cluster's Slurm, called by this process as on a login node, and counted."""

import shlex
from pathlib import Path

import pytest

from slurm.devcluster import DevCluster
from slurm.query import commands
from tests.slurm.programs import Programs

NAMES = ("sacct", "sacctmgr", "sbatch", "scancel", "scontrol", "sinfo", "squeue")


def login_node(cluster: DevCluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Have `slurm.query.commands` find the programs of a cluster that this process is not in."""
    programs = Programs(folder)
    for name in NAMES:
        programs.add(name, f'exec {shlex.join(cluster.command([name]))} "$@"')
    environment = commands._environment
    monkeypatch.setattr(commands, "_environment", lambda: environment() | {"PATH": str(programs.folder)})
    return programs


def submit(cluster: DevCluster, script: str, *options: str) -> str:
    """Submit a small job; return its number."""
    command = ["sbatch", "--parsable", "--output=/dev/null", "--mem=100", *options, f"--wrap={script}"]
    return cluster.run(command, cwd=Path("/")).stdout.strip()
