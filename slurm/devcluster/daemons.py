"""The daemons of a cluster: the command that starts each, and a command that tells whether it answers."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from slurm.devcluster.configuration import DATABASE_PORT, DATABASE_SOCKET, INSIDE, MUNGE_SOCKET
from slurm.devcluster.settings import ClusterSettings


@dataclass(frozen=True)
class Daemon:
    """A daemon, in paths and commands as they are inside the cluster.

    Attributes:
        name: What the cluster calls it, such as slurmd.n2.
        command: Starts it; returns when it runs in the background.
        pid_file: Where it writes its number.
        answers: A command that succeeds once the daemon answers.
        log: Where it says what is wrong.
    """

    name: str
    command: Sequence[str]
    pid_file: Path
    answers: Sequence[str]
    log: Path

    @property
    def program(self) -> str:
        """The program's name without the node."""
        return self.name.partition(".")[0]

    def accepts(self, answer: str, since: int) -> bool:
        """Return whether an answer is the daemon's that was started at `since` (seconds of the epoch) or later.

        The controller answers for a node: with what it knew before, until the node has registered again.
        """
        if self.program != "slurmd":
            return True
        started = re.search(r"SlurmdStartTime=(\d\S*)", answer)
        return started is not None and datetime.fromisoformat(started[1]).timestamp() >= since


TEMPORARY = f"--tmpdir={INSIDE}/temporary"
"""Option for a temporary folder of its own: MariaDB names files there by process number, equal in two clusters."""


def daemons(settings: ClusterSettings) -> list[Daemon]:
    """Return the daemons of a cluster in the order in which they start."""
    accounting = [_mariadbd(), _slurmdbd()] if settings.accounting else []
    return [_munged(), *accounting, _slurmctld(), *map(_slurmd, settings.node_names)]


def install_database(folder: Path) -> list[str]:
    """Return the command that makes an empty database in `folder`, which only root may read."""
    return [
        *("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={folder}"),
        *("--auth-root-authentication-method=socket", "--skip-test-db", "--skip-name-resolve", TEMPORARY),
    ]


def query_database() -> list[str]:
    """Return the command that hands the statements on its input to the database."""
    return ["mariadb", "--no-defaults", f"--socket={DATABASE_SOCKET}", "--user=root"]


def _munged() -> Daemon:
    keys = INSIDE / "munge"
    return Daemon(
        "munged",
        [
            *("munged", f"--key-file={keys}/munge.key", f"--socket={MUNGE_SOCKET}", "--num-threads=4"),
            *(f"--pid-file={INSIDE}/pid/munged.pid", f"--log-file={keys}/munged.log", f"--seed-file={keys}/seed"),
        ],
        INSIDE / "pid/munged.pid",
        ["munge", f"--socket={MUNGE_SOCKET}", "--no-input"],
        keys / "munged.log",
    )


def _mariadbd() -> Daemon:
    folder, pid_file, log = DATABASE_SOCKET.parent, INSIDE / "pid/mariadbd.pid", INSIDE / "log/mariadbd.log"
    server = [
        *("mariadbd", "--no-defaults", "--user=root", f"--datadir={folder}", f"--socket={DATABASE_SOCKET}"),
        *(f"--pid-file={pid_file}", "--bind-address=127.0.0.1", f"--port={DATABASE_PORT}", "--skip-log-bin"),
        *("--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0"),
        *("--skip-name-resolve", f"--log-error={log}", TEMPORARY),
    ]
    # It cannot go into the background by itself.
    return Daemon(
        "mariadbd",
        ["setsid", "--fork", *server],
        pid_file,
        [*query_database(), "--execute=select 1"],
        log,
    )


def _slurmdbd() -> Daemon:
    return Daemon(
        "slurmdbd",
        ["slurmdbd"],
        INSIDE / "pid/slurmdbd.pid",
        ["sacctmgr", "--noheader", "list", "cluster"],
        INSIDE / "log/slurmdbd.log",
    )


def _slurmctld() -> Daemon:
    return Daemon(
        "slurmctld",
        ["slurmctld"],
        INSIDE / "pid/slurmctld.pid",
        ["sinfo", "--noheader"],
        INSIDE / "log/slurmctld.log",
    )


def _slurmd(node: str) -> Daemon:
    return Daemon(
        f"slurmd.{node}",
        ["slurmd", "-N", node],
        INSIDE / f"pid/slurmd.{node}.pid",
        ["scontrol", "--oneliner", "show", "node", node],
        INSIDE / f"log/slurmd.{node}.log",
    )


def outside(path: Path, folder: Path) -> Path:
    """Return the path outside of the namespaces of a path inside the cluster."""
    return folder / os.path.relpath(path, INSIDE)
