"""Starts the daemons of a cluster, finds them and kills them."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals

from slurm.devcluster.configuration import DATABASE_SOCKET, HOST, database_setup
from slurm.devcluster.daemons import Daemon, daemons, install_database, outside, query_database
from slurm.devcluster.errors import DaemonError
from slurm.devcluster.namespace import Namespace
from slurm.devcluster.requirements import PATH
from slurm.devcluster.settings import ClusterSettings

_SECONDS = 60
"""Seconds after which a daemon has failed to answer or to end; on a busy machine it takes several seconds."""


class Control:
    """The daemons of a cluster whose namespaces exist."""

    def __init__(self, folder: Path, settings: ClusterSettings, namespace: Namespace) -> None:
        self._folder = folder
        self._namespace = namespace
        self._accounting = settings.accounting
        self._daemons = {daemon.name: daemon for daemon in daemons(settings)}

    @property
    def names(self) -> list[str]:
        """All daemons, in the order in which they start."""
        return list(self._daemons)

    def start_all(self, password: str) -> None:
        """Start every daemon and wait until all answer.

        Raises:
            DaemonError: One does not.
        """
        with ThreadPoolExecutor() as several:
            munged = several.submit(self._start, self._daemons["munged"])
            if self._accounting:
                self._start_database(password)
            munged.result()
            if self._accounting:
                self._start(self._daemons["slurmdbd"])
                self._must(["sacctmgr", "--immediate", "add", "cluster", HOST], "making the cluster in the accounting")
            rest = [daemon for daemon in self._daemons.values() if daemon.program in ("slurmctld", "slurmd")]
            list(several.map(self._start, rest))

    def running(self) -> dict[str, tuple[int, int]]:
        """Return the daemons that run, each with its process number inside and outside."""
        processes = self._namespace.processes()
        found = {}
        for name, daemon in self._daemons.items():
            # A file outlives its process, whose number another one may have by now.
            with suppress(OSError, ValueError):
                inside = int(outside(daemon.pid_file, self._folder).read_text())
                if inside in processes and _program(processes[inside]) == daemon.program:
                    found[name] = (inside, processes[inside])
        return found

    def kill(self, name: str, signal: Signals) -> None:
        """Send a signal; after one that ends a daemon, wait until it is gone."""
        self._find(name)
        running = self.running()
        if name not in running:
            raise DaemonError(f"{name} does not run in the development cluster; start it before it is killed")
        os.kill(running[name][1], signal)
        if signal in (SIGKILL, SIGTERM, SIGINT):
            self._wait(lambda: name not in self.running(), f"{name} was sent {signal.name} and is still there", name)

    def start(self, name: str) -> None:
        """Start a daemon that does not run and wait until it answers."""
        daemon = self._find(name)
        if name in self.running():
            raise DaemonError(f"{name} runs in the development cluster already")
        self._start(daemon)

    def _start_database(self, password: str) -> None:
        self._must(install_database(DATABASE_SOCKET.parent), "making the database")
        self._start(self._daemons["mariadbd"])
        self._must(query_database(), "preparing the database", text=database_setup(password))

    def _start(self, daemon: Daemon) -> None:
        since = int(time.time())
        with (self._folder / f"log/{daemon.name}.start.log").open("wb") as said:
            status = subprocess.run(
                self._namespace.enter(daemon.command, cwd=Path("/")),
                env=os.environ | {"PATH": PATH},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                umask=0o022,
                check=False,
            ).returncode
        if status:
            raise DaemonError(self._explain(f"{daemon.name} ended with {status} when it was started", daemon.name))
        self._wait(lambda: self._answers(daemon, since), f"{daemon.name} does not answer", daemon.name)

    def _answers(self, daemon: Daemon, since: int) -> bool:
        with suppress(subprocess.TimeoutExpired):
            answer = self._call(daemon.answers, seconds=10)
            return answer.returncode == 0 and daemon.accepts(answer.stdout, since)
        return False

    def _must(self, command: Sequence[str], what: str, *, text: str = "") -> None:
        answer = self._call(command, seconds=_SECONDS, text=text)
        if answer.returncode:
            said = (answer.stderr + answer.stdout).strip() or "nothing"
            raise DaemonError(f"{what} failed: `{command[0]}` ended with {answer.returncode} and said: {said}")

    def _call(self, command: Sequence[str], *, seconds: float, text: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self._namespace.enter(command, cwd=Path("/")),
            env=os.environ | {"PATH": PATH, "SLURM_TIME_FORMAT": "standard"},
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
            umask=0o022,
            check=False,
        )

    def _wait(self, condition: Callable[[], bool], failure: str, name: str) -> None:
        end = time.monotonic() + _SECONDS
        while not condition():
            if time.monotonic() > end:
                raise DaemonError(self._explain(f"{failure} after {_SECONDS} s", name))
            time.sleep(0.05)

    def _find(self, name: str) -> Daemon:
        if name not in self._daemons:
            raise DaemonError(f"there is no daemon {name} in this cluster; it has {', '.join(self._daemons)}")
        return self._daemons[name]

    def _explain(self, failure: str, name: str) -> str:
        logs = [outside(self._daemons[name].log, self._folder), self._folder / f"log/{name}.start.log"]
        lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()[-5:]]
        return "\n  ".join([f"{failure}; its last output (more in {logs[0]}):", *lines])


def _program(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
