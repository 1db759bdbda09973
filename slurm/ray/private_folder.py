"""Temporary folders with short paths that only their owner can enter; the next process clears those left behind."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slurm.errors import SlurmError

PREFIX = "ntk-"

LOCK = "lock"

LONGEST_ROOT = 26
"""Most bytes of the parent folder's path: a socket's path has at most 107, and the part below takes up to 81."""

SECONDS_UNLOCKED = 3600
"""Age from which a folder without a lock counts as left by a process that died while making it."""


class NoScratchError(SlurmError):
    """No temporary folder can be made on a node."""


@contextmanager
def private_folder(root: Path) -> Iterator[Path]:
    """Make a folder under `root`, or under /tmp if that is too deep for the paths of sockets; remove it afterwards.

    Folders that earlier processes of this user left there because they were killed are removed first.

    Raises:
        NoScratchError: nothing can be written there.
    """
    if len(os.fsencode(root)) > LONGEST_ROOT:
        root = Path("/tmp")
    _remove_left_behind(root)
    folder, lock = _make(root)
    try:
        yield folder
    finally:
        remove(folder)
        os.close(lock)


def remove(folder: Path) -> None:
    """Remove a folder with everything in it; what cannot be removed is left to the next process."""
    shutil.rmtree(folder, ignore_errors=True)


def _make(root: Path) -> tuple[Path, int]:
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))  # can be entered by its owner alone
        except OSError as error:
            raise NoScratchError(
                f"no temporary folder can be made in {root} ({error.strerror}); "
                "name another as `local_scratch` in a cluster's profile, or in TMPDIR"
            ) from None
        lock = _locked(folder / LOCK)
        if lock is not None:
            return folder, lock


def _locked(path: Path) -> int | None:
    """Lock a file while this process or one it forks lives; return None if another has locked it or removed it."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            pass
        os.close(descriptor)
    return None


def _remove_left_behind(root: Path) -> None:
    for folder in root.glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.getuid() or folder.is_symlink() or not folder.is_dir():
                continue
            if not (folder / LOCK).exists() and time.time() - status.st_mtime < SECONDS_UNLOCKED:
                continue
            lock = _locked(folder / LOCK)
            if lock is not None:
                remove(folder)
                os.close(lock)
