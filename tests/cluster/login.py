"""A user on the login node of the development cluster: commands of ntksweep, one after another or at once.

They are forked from a process that has loaded the libraries (see `tests.faults.driving`), and find on their PATH
programs that call the cluster's own.
"""

import json
import os
import pty
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

from slurm.devcluster import DevCluster
from tests.cluster.clients import NAMES
from tests.cluster.submitted import Submitted
from tests.faults.driving import Answer, Command
from tests.slurm.programs import Programs


class Login:
    """A user who types commands of ntksweep on the login node.

    Attributes:
        programs: the programs of Slurm that this user finds, and how they were called.
        path: where this user looks for programs.
        umask: rights that this user's files do not have by themselves.
    """

    def __init__(self, cluster: DevCluster, folder: Path) -> None:
        self.cluster = cluster
        folder.mkdir()
        self.programs = Programs(folder)
        for name in NAMES:
            self.programs.add(name, f"exec {self.real(name)}")
        self.path = f"{self.programs.folder}:/usr/bin:/bin"
        self.umask = 0o022

    def real(self, name: str) -> str:
        """Return the words of a shell that call a program of the cluster with the arguments of the script."""
        return f'{shlex.join(self.cluster.command([name]))} "$@"'

    def start(self, sweep: Submitted, *arguments: str | Path, says: str | None = None) -> Command:
        """Start a command in the folder of a sweep; `says` is what the user answers at the terminal, if at one."""
        return Command(*arguments, folder=sweep.folder, prepare=partial(_prepare, self.path, self.umask, says))

    def run(self, sweep: Submitted, *arguments: str | Path, says: str | None = None) -> Answer:
        """Run a command to its end."""
        return self.start(sweep, *arguments, says=says).wait()

    def must(self, sweep: Submitted, *arguments: str | Path) -> str:
        """Run a command that succeeds; return what it says."""
        answer = self.run(sweep, *arguments)
        assert answer.status == 0, answer.output
        return answer.output

    def submit(self, sweep: Submitted, *arguments: str, **profile: Any) -> Answer:
        """Submit a sweep with a profile that has some keys changed."""
        return self.run(sweep, "submit", sweep.spec, "--profile", sweep.profile(**profile), "--yes", *arguments)

    def status(self, sweep: Submitted) -> dict[str, Any]:
        """Return what `status --json` says."""
        return dict(json.loads(self.run(sweep, "status", sweep.results, "--json").output))


def _prepare(path: str, umask: int, says: str | None) -> None:
    os.environ["PATH"] = path
    os.umask(umask)
    if says is not None:
        terminal, keyboard = pty.openpty()
        os.write(terminal, says.encode())
        sys.stdin = os.fdopen(keyboard)
