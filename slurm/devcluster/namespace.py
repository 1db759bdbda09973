"""Namespaces of a cluster's own: network, processes, mounts and host name.

Nothing in them can be reached from outside, and nothing in them outlives their first process.
"""

import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from slurm.devcluster import init
from slurm.devcluster.configuration import HOST, HOST_ADDRESS, INSIDE
from slurm.devcluster.errors import CannotRunHereError, DevClusterError
from slurm.devcluster.requirements import PATH

_SECONDS = 30


@dataclass(frozen=True)
class Namespace:
    """The namespaces of a cluster.

    Attributes:
        pid: Their first process.
        started: Its start, which tells it from a later process of that number.
        parent: The process that waits for it, if that is a child of this process.
    """

    pid: int
    started: int
    parent: subprocess.Popen[bytes] | None = None

    def record(self) -> dict[str, int]:
        """Return the text by which other processes find it."""
        return {"pid": self.pid, "started": self.started}

    @classmethod
    def start(cls, folder: Path, *, held: int, tied: bool) -> "Namespace":
        """Make namespaces in which `folder` is at `INSIDE`.

        Args:
            folder: The cluster's folder; holds etc/hosts and log already.
            held: An open file that the namespaces keep open as long as they exist.
            tied: Whether they end with the thread that calls this, however it ends.

        Raises:
            CannotRunHereError: This machine does not let us.
        """
        log = folder / "log/init.log"
        script = [sys.executable, "-I", init.__file__, str(folder), str(INSIDE), HOST, HOST_ADDRESS]
        unshare = ["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--mount-proc", "--kill-child", *script]
        with log.open("wb") as stream:
            parent = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *unshare] if tied else unshare,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=os.environ | {"PATH": PATH},
                pass_fds=(held,),
                start_new_session=True,
            )
        try:
            assert parent.stdout is not None
            with parent.stdout as answer:
                if answer.readline() != b"ready\n":
                    raise CannotRunHereError(_refusal(log.read_text(errors="replace").strip()))
            first = psutil.Process(parent.pid).children()[0].pid
            return cls(first, _start_time(first) or 0, parent)
        except BaseException:
            parent.kill()
            parent.wait()
            raise

    @property
    def alive(self) -> bool:
        """True if the namespaces exist."""
        return _start_time(self.pid) == self.started

    def processes(self) -> dict[int, int]:
        """Return the processes inside: the number of each inside, mapped to its number outside."""
        return dict(self._members()) if self.alive else {}

    def enter(self, command: Sequence[str], *, user: str | None = None, cwd: Path | None = None) -> list[str]:
        """Return a command that runs `command` inside and dies with the process that waits for it.

        Without `cwd` it runs in the folder that the returned command is started in.

        Raises:
            DevClusterError: There is no such user.
        """
        variables = {"SLURM_CONF": str(INSIDE / "etc/slurm.conf")} | (_identity(user) if user else {})
        words = ["nsenter", f"--target={self.pid}", "--net", "--pid", "--mount", "--uts", "--", "setpriv"]
        # nsenter passes no signal on: what it started would outlive it.
        words += ["--pdeathsig=KILL", *(_change_to(user) if user else [])]
        # It gets Ctrl-C as any other command does, even if the process that waits for it ignores Ctrl-C.
        command = ["--default-signal=INT", *(f"{name}={value}" for name, value in variables.items()), *command]
        if cwd is not None:
            return [*words, "env", f"--chdir={cwd}", *command]
        # Entering a mount namespace leaves the current folder behind.
        return ["sh", "-c", f'exec {shlex.join(words)} env --chdir="$(pwd -P)" "$@"', "sh", *command]

    def kill(self) -> None:
        """Kill everything inside and wait until it is gone.

        Raises:
            DevClusterError: Something does not go.
        """
        try:
            if self.alive:
                first = psutil.Process(self.pid)
                parent = first.parent()
                # It is gone when all others are, and its parent when it is.
                first.kill()
                if parent is not None and self.parent is None:
                    parent.wait(_SECONDS)
            if self.parent is not None:
                self.parent.wait(_SECONDS)
        except psutil.NoSuchProcess:
            pass
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            raise DevClusterError(f"process {self.pid} was killed {_SECONDS} s ago and is still there") from None

    def _members(self) -> Iterator[tuple[int, int]]:
        link = Path(f"/proc/{self.pid}/ns/pid").readlink()
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            # Processes end while we look.
            with suppress(OSError):
                if Path(entry.path, "ns/pid").readlink() == link:
                    yield _number_inside(Path(entry.path, "status").read_text()), int(entry.name)


def _start_time(pid: int) -> int | None:
    """Return the start time of a process, in ticks since the machine started; None if no such process runs."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _number_inside(status: str) -> int:
    line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return int(line.split()[-1])


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise DevClusterError(f"there is no user {user} on this machine") from None


def _change_to(user: str) -> list[str]:
    account = _account(user)
    return [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups"]


def _identity(user: str) -> dict[str, str]:
    return {"USER": user, "LOGNAME": user, "HOME": _account(user).pw_dir}


def _refusal(reason: str) -> str:
    return (
        f"no namespaces can be made on this machine: {reason or 'unshare ended without a message'}; a development "
        "cluster needs a machine, or a container with the rights of root (docker run --privileged), that allows "
        "`unshare --net --pid --mount --uts`"
    )
