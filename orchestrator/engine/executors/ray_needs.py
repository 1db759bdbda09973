"""What Ray needs of this machine before it starts: a folder for its files, and an interface over which it talks."""

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from orchestrator.errors import RayFailedError
from slurm.ray.private_folder import LONGEST_ROOT

NEEDED_BYTES = 16 << 20
"""Bytes that Ray needs at least in its temporary folder."""

LOOPBACK = "127.0.0.1"

CONNECT_SECONDS = 5.0
"""Seconds for a connection within this machine, which takes less than one hundredth of a second."""


def refuse_without_loopback() -> None:
    """Raise an error if this machine cannot reach itself: Ray's programs would wait for each other for minutes.

    Raises:
        RayFailedError: says what the system says, and what to do.
    """
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), CONNECT_SECONDS).close()
    except OSError as error:
        raise RayFailedError(
            f"Ray does not start: this machine cannot connect to itself at {LOOPBACK} ({error.strerror or error}), "
            "over which Ray's programs talk to each other; bring its loopback interface up (`ip link set lo up`), or "
            "run without Ray with `--executor inline`"
        ) from error


def usable_root() -> Path:
    """Return the first folder for temporary files that Ray can use, TMPDIR before others.

    Raises:
        RayFailedError: none can be used; the message says why.
    """
    refused, folders = [], ["/tmp", "/var/tmp", "/dev/shm"]
    with suppress(FileNotFoundError):  # of all that Python tries, none can be written
        folders.insert(0, tempfile.gettempdir())
    for folder in dict.fromkeys(folders):
        reason = _unusable(Path(folder))
        if reason is None:
            return Path(folder)
        refused.append(f"{folder} {reason}")
    raise RayFailedError(
        f"Ray needs a folder for its sockets and logs, and there is none: {', '.join(refused)}; make room in one of "
        f"them, name another in TMPDIR of at most {LONGEST_ROOT} bytes, or run without Ray with `--executor inline`"
    )


def _unusable(folder: Path) -> str | None:
    """Return why Ray cannot use a folder; None if it can."""
    if len(os.fsencode(folder)) > LONGEST_ROOT:
        return f"is too deep for the paths of sockets ({len(os.fsencode(folder))} bytes)"
    if not folder.is_dir():
        return "is not there"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "cannot be written"
    free = shutil.disk_usage(folder).free
    return f"is full ({free >> 20} MB are free)" if free < NEEDED_BYTES else None
