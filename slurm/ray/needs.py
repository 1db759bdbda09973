"""What Ray needs of a machine before it starts there: room for its files, an address it can reach, and threads."""

import os
import resource
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from slurm.errors import SlurmError
from slurm.ray.private_folder import LONGEST_ROOT

NEEDED_BYTES = 16 << 20
"""Bytes that Ray needs at least in its temporary folder."""

SHARED_MEMORY = Path("/dev/shm")
"""Folder in which Ray keeps its object store."""

LOOPBACK = "127.0.0.1"

CONNECT_SECONDS = 5.0
"""Seconds for a connection within this machine, which takes less than one hundredth of a second."""

THREADS_OF_RAY, THREADS_OF_A_WORKER = 100, 26
"""Threads that a Ray starts at least, in the process that starts it and in its own, and in a worker: a machine with two
processors has no fewer."""

_EXEMPT = 1 << 21 | 1 << 24
"""Capabilities whose holders may start any number of threads: CAP_SYS_ADMIN and CAP_SYS_RESOURCE."""


class RayNeedsError(SlurmError):
    """Ray would not start on this machine, or would abort there."""

    def __init__(self, why: str) -> None:
        super().__init__(f"Ray does not start: {why}")


def refuse_too_few_threads(workers: int) -> None:
    """Raise an error if this user may not start as many threads as Ray does, which would abort with its process.

    Args:
        workers: how many workers Ray is to start.

    Raises:
        RayNeedsError: says how many there are, and what to do.
    """
    most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if most == resource.RLIM_INFINITY or _is_exempt():
        return
    wanted = THREADS_OF_RAY + THREADS_OF_A_WORKER * workers
    running = _threads_of_user()
    if most - running < wanted:
        raise RayNeedsError(
            f"with {workers} workers it starts {wanted} threads or more, and of the {most:,} that you may have on this "
            f"machine {running:,} are running; raise that (`ulimit -u`), end other programs, or have fewer workers"
        )


def _threads_of_user() -> int:
    found = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or may not be looked at
            if process.uids().real == os.getuid():
                found += process.num_threads()
    return found


def _is_exempt() -> bool:
    """Tell whether the system lets this process start any number of threads."""
    if os.getuid() == 0:
        return True
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return True
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) & _EXEMPT)


def refuse_unreachable(address: str = LOOPBACK) -> None:
    """Raise an error if this machine cannot reach itself: Ray's programs would wait for each other for minutes.

    Args:
        address: the address of this machine at which they look for each other.

    Raises:
        RayNeedsError: says what the system says, and what to do.
    """
    try:
        # on all interfaces where it is not loopback: behind a translated address no interface has it
        with socket.create_server((address if address == LOOPBACK else "", 0)) as server:
            socket.create_connection((address, server.getsockname()[1]), CONNECT_SECONDS).close()
    except OSError as error:
        mend = (
            "bring its loopback interface up (`ip link set lo up`)"
            if address == LOOPBACK
            else "see whether that is an address of this node, and which connections its firewall lets through"
        )
        raise RayNeedsError(
            f"this machine cannot connect to itself at {address} ({error.strerror or error}), over which Ray's "
            f"programs talk to each other; {mend}"
        ) from error


def object_store_folder(private: Path) -> Path | None:
    """Return the folder for Ray's object store where shared memory cannot be written; None where it can.

    Ray looks at its size alone, and its raylet then never comes up.

    Args:
        private: a folder for this Ray alone.
    """
    return None if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) else private


def usable_root() -> Path:
    """Return the first folder for temporary files that Ray can use, TMPDIR before others.

    Raises:
        RayNeedsError: none can be used; the message says why.
    """
    refused, folders = [], ["/tmp", "/var/tmp", "/dev/shm"]
    with suppress(FileNotFoundError):  # of all that Python tries, none can be written
        folders.insert(0, tempfile.gettempdir())
    for folder in dict.fromkeys(folders):
        reason = _unusable(Path(folder))
        if reason is None:
            return Path(folder)
        refused.append(f"{folder} {reason}")
    raise RayNeedsError(
        f"it needs a folder for its sockets and logs, and there is none: {', '.join(refused)}; make room in one of "
        f"them, or name another in TMPDIR of at most {LONGEST_ROOT} bytes"
    )


def refuse_full(folder: Path) -> None:
    """Raise an error if there is no room for the files of Ray in a folder: its programs would abort while they start.

    Raises:
        RayNeedsError: says how much room there is, and what to do.
    """
    if reason := _full(folder):
        raise RayNeedsError(
            f"it needs a folder for its sockets and logs, and {folder} {reason}; make room there, or name another "
            f"folder of at most {LONGEST_ROOT} bytes as `local_scratch` in the cluster's profile"
        )


def _unusable(folder: Path) -> str | None:
    """Return why Ray cannot use a folder; None if it can."""
    if len(os.fsencode(folder)) > LONGEST_ROOT:
        return f"is too deep for the paths of sockets ({len(os.fsencode(folder))} bytes)"
    if not folder.is_dir():
        return "is not there"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "cannot be written"
    return _full(folder)


def _full(folder: Path) -> str | None:
    free = shutil.disk_usage(folder).free
    return f"is full ({free >> 20} MB are free)" if free < NEEDED_BYTES else None
