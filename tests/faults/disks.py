"""Small disks, full disks and read-only disks."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a disk of its own over `folder`; the test is skipped where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    if not mounted:
        pytest.skip("mounting a disk needs the rights of root, which this process does not have")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make a folder that `read_only` can protect: for root, whom permissions do not stop, a disk of its own."""
    if os.geteuid() == 0:
        with disk(folder, megabytes=16):
            yield
    else:
        folder.mkdir(parents=True, exist_ok=True)
        yield


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Protect a `writable` folder from being written for a while."""
    if os.geteuid() == 0:
        assert _mount("-o", "remount,ro", str(folder))
    else:
        _permit(folder, writing=False)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            assert _mount("-o", "remount,rw", str(folder))
        else:
            _permit(folder, writing=True)


class Ballast:
    """A file that takes all space which a disk has left."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".ballast"

    def grow(self) -> None:
        """Take what is left."""
        with self._path.open("ab", buffering=0) as stream, suppress(OSError):
            while True:
                stream.write(bytes(4096))

    def drop(self) -> None:
        """Give everything back."""
        self._path.unlink()


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _permit(folder: Path, *, writing: bool) -> None:
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        path.chmod(0o755 if writing else 0o555)
