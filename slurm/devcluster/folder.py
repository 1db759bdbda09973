"""The folder of a cluster: its lock, and its contents before the daemons start."""

import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slurm.devcluster.configuration import gres_conf, hosts, slurm_conf, slurmdbd_conf
from slurm.devcluster.errors import AlreadyUpError, CannotRunHereError, FolderTakenError
from slurm.devcluster.settings import ClusterSettings

_LOCK = "devcluster.lock"
"""File that tells a cluster's folder from others."""

_PARTS = {
    "etc": 0o755,
    "munge": 0o711,
    "database": 0o700,
    "controller": 0o700,
    "spool": 0o755,
    "log": 0o755,
    "pid": 0o755,
    "temporary": 0o700,
    "dev": 0o755,
}
"""Folders in it, with permissions: every user submits, so every user reaches munge's socket and Slurm's files."""


@contextmanager
def hold(folder: Path) -> Iterator[int]:
    """Make the folder if needed and hold it as long as the file that is yielded is open anywhere.

    Raises:
        AlreadyUpError: Another cluster holds it.
        FolderTakenError: It holds something else than a cluster's files.
    """
    _refuse_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None
    held = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyUpError(
                f"a development cluster is up in {folder}, or is just being started: use it with `ntksweep devcluster "
                "run COMMAND` (inside of it, run the command as it is), or end it with `ntksweep devcluster down`"
            ) from None
        yield held
    finally:
        os.close(held)


def lay_out(folder: Path, settings: ClusterSettings) -> str:
    """Remove the files of an earlier cluster from a held folder, and write all files that daemons read.

    Returns:
        The password of slurmdbd's database.
    """
    # The folder itself is what every user sees inside, wherever it lies.
    folder.chmod(0o755)
    for name, mode in _PARTS.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        _make(folder / name, mode)
    for node in settings.node_names:
        _make(folder / "spool" / node, 0o755)
    password = secrets.token_hex()
    etc = folder / "etc"
    _write(etc / "slurm.conf", slurm_conf(settings), 0o644)
    _write(etc / "gres.conf", gres_conf(settings), 0o644)
    _write(etc / "hosts", hosts(settings), 0o644)
    _write(etc / "slurmdbd.conf", slurmdbd_conf(password), 0o600)
    _write(folder / "munge/munge.key", secrets.token_hex(), 0o400)
    for number in range(settings.gpus):
        # Slurm counts nothing but character devices; these are further names of /dev/null.
        device = folder / f"dev/nvidia{number}"
        try:
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError as error:
            raise CannotRunHereError(
                f"no devices can be made in {folder} ({error.strerror}), which pretended GPUs need: leave them out "
                "with --gpus 0, or use a folder and a machine that allow them"
            ) from None
        device.chmod(0o666)
    return password


def _refuse_foreign(folder: Path) -> None:
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise FolderTakenError(f"{folder} is no folder; name another one with --folder") from None
    except OSError as error:
        raise _unusable(folder, error) from None
    if names and _LOCK not in names:
        raise FolderTakenError(
            f"the folder {folder} holds something other than a development cluster ({min(names)}, ...), whose files "
            "would be lost there; name an empty or a new one with --folder"
        )


def _unusable(folder: Path, error: OSError) -> FolderTakenError:
    return FolderTakenError(f"{folder} cannot be used ({error.strerror}); name another one with --folder")


def _make(path: Path, mode: int) -> None:
    path.mkdir()
    path.chmod(mode)


def _write(path: Path, text: str, mode: int) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)
