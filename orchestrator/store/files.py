"""Writing files so that a reader never sees half of one, on local disks, NFS and Lustre alike."""

import errno
import os
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

import psutil

from orchestrator.errors import StorageError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_WRITING = (errno.EROFS, errno.EACCES, errno.EPERM)


@cache
def host_name() -> str:
    """Return the node's name: Slurm's where there is one, for several Slurm nodes may share a host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def slurm_job() -> str | None:
    """Return the Slurm job that this process runs in, as Slurm's own commands name it; None outside of one."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


@cache
def process_namespace() -> str:
    """Return the number of this process's PID namespace: containers of one host name each count their own processes."""
    try:
        return "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))  # noqa: PTH115 - not a real path
    except OSError:
        return "0"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into one clear error.

    Raises:
        StorageError: in place of the operating system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageError(
                f"the disk is full: {path} could not be written. Nothing finished is lost; free some space (or "
                "raise the quota) and run the same command again"
            ) from error
        if error.errno in _NO_WRITING:
            raise StorageError(
                f"{path} cannot be written ({error.strerror}). Nothing finished is lost; make the folder writable "
                "and run the same command again"
            ) from error
        raise


def temporary_beside(path: Path) -> Path:
    """Return a name for a temporary file in the folder of `path` that no other process uses."""
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.{_start_of_job()}.{uuid4().hex[:8]}.tmp")


def _machine() -> str:
    return f"{host_name()}-{process_namespace()}"


def _start_of_job() -> str:
    """Return what names this very start of this Slurm job, which may be queued again; 0 outside of one."""
    job = slurm_job()
    return f"{job}r{os.environ.get('SLURM_RESTART_COUNT', '0')}" if job else "0"


def remove_leftovers(root: Path, *, ended_nodes: Collection[str] = ()) -> None:
    """Remove temporary files below `root` that processes left when they were killed, if it may.

    Of this machine it knows which processes are gone; of others it has to be told.

    Args:
        root: the folder.
        ended_nodes: nodes on which no process of this very start of this Slurm job lives.
    """
    here = re.compile(rf"\..+\.{re.escape(_machine())}\.(\d+)\.\w+\.\w+\.tmp")
    nodes = "|".join(map(re.escape, ended_nodes))
    ended = re.compile(rf"\..+\.(?:{nodes})-\d+\.\d+\.{_start_of_job()}\.\w+\.tmp")
    for path in root.rglob(".*.tmp"):
        by_one_here = here.fullmatch(path.name)
        if (by_one_here and not psutil.pid_exists(int(by_one_here[1]))) or (nodes and ended.fullmatch(path.name)):
            with suppress(OSError):
                path.unlink()


def _write(path: Path, content: bytes, *, durable: bool) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


def publish_new(path: Path, content: bytes, *, durable: bool = True) -> bool:
    """Create `path` with `content` in one step; return False, changing nothing, if it exists already.

    Args:
        path: the file to create.
        content: all of its content.
        durable: wait until the content is on the disk, so that it survives a power cut.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    temporary = temporary_beside(path)
    with explained(path):
        try:
            _write(temporary, content, durable=durable)
            return link_new(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def link_new(temporary: Path, path: Path) -> bool:
    """Give `temporary` the name `path` too, unless that exists: the first writer wins, on NFS as well."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    return True


def replace(path: Path, content: bytes) -> None:
    """Create or replace `path` in one step; a reader sees the old content or the new, never a mixture.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    temporary = temporary_beside(path)
    with explained(path):
        try:
            _write(temporary, content, durable=True)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
