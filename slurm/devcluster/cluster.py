"""A cluster that is up: bring it up, find it again, run commands in it, kill its daemons, take it down."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from signal import SIGKILL, Signals

from slurm.devcluster.control import Control
from slurm.devcluster.errors import CommandFailedError
from slurm.devcluster.folder import hold, lay_out
from slurm.devcluster.namespace import Namespace
from slurm.devcluster.requirements import refuse_what_cannot_run
from slurm.devcluster.settings import ClusterSettings

_STATE = "cluster.json"


class DevCluster:
    """A development cluster that is up."""

    def __init__(self, folder: Path, settings: ClusterSettings, namespace: Namespace) -> None:
        self.folder = folder
        self.settings = settings
        self._namespace = namespace
        self._control = Control(folder, settings, namespace)

    @classmethod
    def up(cls, folder: Path, settings: ClusterSettings | None = None, *, tied: bool = False) -> "DevCluster":
        """Start a cluster and return it when every node is idle.

        Args:
            folder: Holds its state and logs; made if needed. What an earlier cluster left in it is removed.
            settings: Its size; the usual one if not given.
            tied: Whether the cluster ends with the thread that calls this, also if that is killed.

        Raises:
            AlreadyUpError: A cluster is up in this folder.
            CannotRunHereError: Rights, programs or namespaces are missing.
            FolderTakenError: The folder holds something else.
            DaemonError: A daemon does not start.
        """
        folder, settings = folder.absolute(), settings or ClusterSettings()
        refuse_what_cannot_run(settings)
        with hold(folder) as held:
            password = lay_out(folder, settings)
            cluster = cls(folder, settings, Namespace.start(folder, held=held, tied=tied))
        try:
            state = {"settings": asdict(settings), "namespace": cluster._namespace.record()}
            (folder / _STATE).write_text(json.dumps(state))
            cluster._control.start_all(password)
        except BaseException:
            cluster.down()
            raise
        return cluster

    @classmethod
    def find(cls, folder: Path) -> "DevCluster | None":
        """Return the cluster that is up in a folder; None if there is none."""
        folder = folder.absolute()
        try:
            state = json.loads((folder / _STATE).read_text())
            cluster = cls(folder, ClusterSettings(**state["settings"]), Namespace(**state["namespace"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cluster if cluster._namespace.alive else None

    def down(self) -> None:
        """Kill everything in the cluster, jobs included; logs and the state of the daemons stay in the folder."""
        self._namespace.kill()
        (self.folder / _STATE).unlink(missing_ok=True)

    def command(self, command: Sequence[str | Path], *, user: str | None = None, cwd: Path | None = None) -> list[str]:
        """Return a command that runs `command` in the cluster, for subprocess.

        It keeps the current folder (unless `cwd` is given) and the environment, and ends with the command's exit
        status. Signals are not passed on: if the returned command is killed by one, the command inside is SIGKILLed;
        to send the command another signal, run `kill` inside.

        Raises:
            DevClusterError: There is no such user.
        """
        return self._namespace.enter([str(word) for word in command], user=user, cwd=cwd)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        user: str | None = None,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 120,
        check: bool = True,
        text: str | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the cluster to its end and return its result with its output.

        Args:
            command: Program and arguments.
            user: Who runs it; root if not given.
            cwd: The folder it runs in; the current one if not given.
            environment: Variables beside those of this process.
            timeout: Seconds after which the command is killed.
            check: Whether an exit status other than 0 is an error.
            text: What the command reads; nothing if not given.

        Raises:
            CommandFailedError: The command failed, and `check` is set.
            subprocess.TimeoutExpired: It took too long.
        """
        answer = subprocess.run(
            self.command(command, user=user, cwd=cwd),
            env=os.environ | (environment or {}),
            input=text or "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and answer.returncode:
            said = (answer.stderr + answer.stdout).strip() or "nothing"
            words = " ".join(str(word) for word in command)
            raise CommandFailedError(f"`{words}` ended with {answer.returncode} in the cluster; it said: {said}")
        return answer

    @property
    def daemon_names(self) -> list[str]:
        """The daemons that the cluster consists of, in the order in which they start."""
        return self._control.names

    def daemons(self) -> dict[str, int]:
        """Return the daemons that run, with their process numbers inside the cluster."""
        return {name: inside for name, (inside, _) in self._control.running().items()}

    def kill(self, name: str, signal: Signals = SIGKILL) -> None:
        """Send a daemon a signal; after one that ends it, wait until it is gone.

        Raises:
            DaemonError: There is no such daemon, it does not run, or it does not end.
        """
        self._control.kill(name, signal)

    def start(self, name: str) -> None:
        """Start a daemon that does not run and wait until it answers.

        Raises:
            DaemonError: There is no such daemon, it runs already, or it does not answer.
        """
        self._control.start(name)
