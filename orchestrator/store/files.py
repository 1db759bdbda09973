"""Writing files so that a reader never sees half of one, on local disks, NFS and Lustre alike."""

import errno
import os
import re
import resource
import socket
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from ntk_dist.device.faults import is_out_of_files
from orchestrator.errors import StorageError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_WRITING = (errno.EROFS, errno.EACCES, errno.EPERM)
_IMPOSSIBLE = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENOTSUP)
_IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP)


class NotAFileError(OSError):
    """A path leads to something other than a regular file: a link, a folder, a pipe."""


@cache
def host_name() -> str:
    """Return the node's name, by Slurm if possible, because several Slurm nodes may share a host name."""
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


def boot_id() -> str:
    """Return the identity of this boot of the operating system."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def process_started(process: int) -> int | None:
    """Return when a living process started, in clock ticks since boot, which do not change when the clock is set."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a full disk, or a folder that cannot be written or is gone, into one clear error.

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
        if is_out_of_files(error):
            raise no_more_files(path) from error
        if error.errno in _IN_THE_WAY:
            raise in_the_way(path) from error
        if error.errno == errno.ENOENT and not path.parent.is_dir():
            raise gone(path) from error
        if error.errno in _IMPOSSIBLE:
            raise StorageError(
                f"{path} cannot be written ({error.strerror}): this file system cannot hold it, or fails; name another "
                "place, with shorter names where they are long, and run the same command again"
            ) from error
        raise


def gone(path: Path) -> StorageError:
    """Return the error that a file or its folder was removed while the file was written at `path`."""
    return StorageError(
        f"{path} cannot be written: it or its folder was removed meanwhile. If that was not intended, run the same "
        "command again"
    )


def in_the_way(path: Path) -> StorageError:
    """Return the error that `path`, or the place of a folder above it, holds something that is not ntksweep's."""
    return StorageError(
        f"{path} cannot be written: something else lies there, or where a folder above it should be. Move that away "
        "and run the same command again"
    )


def no_more_files(path: Path) -> StorageError:
    """Return the error that `path` cannot be opened because this process, or this machine, has too many files open.

    No reader may take it for damage.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return StorageError(
        f"{path} cannot be opened, for too many files are open: a process may open {most:,} here; raise that "
        "(`ulimit -n`) and run the same command again"
    )


@contextmanager
def explained_output(path: Path) -> Iterator[None]:
    """Explain errors as `explained` does, for a file that a user named, which may be a broken link.

    Raises:
        StorageError: in place of the operating system's error.
    """
    with explained(path):
        try:
            yield
        except FileNotFoundError as error:
            raise nothing_above(path) from error


def write_output(path: Path, content: bytes) -> None:
    """Write a file that a user named, in one step; only a file is replaced, no folder, link or device.

    Raises:
        StorageError: something else lies there, or the disk is full.
    """
    with explained(path):
        state = os.lstat(path) if os.path.lexists(path) else None
    if state is not None and not stat.S_ISREG(state.st_mode):
        raise in_the_way(path)
    make_folder(path.parent)
    with explained_output(path):
        replace(path, content)


def make_folder(path: Path) -> None:
    """Create a folder, and those above it, unless it exists.

    Raises:
        StorageError: it cannot be created, or something else lies there.
    """
    with explained(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise in_the_way(path) from error
        except FileNotFoundError as error:  # a broken link, or a file system on which no folder can be made
            raise nothing_above(path) from error


def nothing_above(path: Path) -> StorageError:
    """Return the error that `path` is not in a folder that can be written to."""
    return StorageError(
        f"{path} cannot be written: its folder does not exist, or cannot be written to; name another place, or make "
        "that folder"
    )


def obstacle(path: Path) -> Path | None:
    """Return the entry at or above `path` that is not a folder, so that none can be made there; None if none is."""
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    return None if os.path.isdir(there) else there  # noqa: PTH112 - which raises nothing


def refuse_unwritable(path: Path) -> None:
    """Raise an error if the folder `path`, or the folder in which it would be made, is not writable here.

    Raises:
        StorageError: says which.
    """
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(
            f"{there} cannot be written by you, and results would go to {path}; name another results.folder, or have "
            "this one made writable"
        )


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file: not a link, which may lead anywhere, not a folder, and not a pipe, which never ends.

    Raises:
        NotAFileError: it is something else.
        OSError: it is not there, or may not be read.
        StorageError: too many files are open.
    """
    try:
        stream = open(str(path), "rb", buffering=0, opener=_plainly)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotAFileError(errno.EINVAL, "it is a link, not a file", str(path)) from None
        if error.errno == errno.EISDIR:
            raise NotAFileError(errno.EINVAL, "it is a folder, not a file", str(path)) from None
        if is_out_of_files(error):
            raise no_more_files(path) from error
        raise
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise NotAFileError(errno.EINVAL, "it is not a file", str(path))
    return stream


def _plainly(path: str, flags: int) -> int:
    # Do not wait for a process that writes into a pipe.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


LARGEST_READ = 1 << 29
"""Bytes of a file that is read into memory, at most; what ntksweep writes to be read at once is far smaller."""


def read_plain(path: Path, *, largest: int | None = LARGEST_READ) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file.
        largest: its bytes, at most; None for any number.

    Raises:
        NotAFileError: it is something else.
        OSError: it is not there, may not be read, or is larger.
    """
    with open_plain(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if largest is not None and size > largest:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, far more than ntksweep writes there", str(path))
        return stream.read()


def is_plain(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry of a folder is a regular file."""
    return entry.is_file(follow_symlinks=False)


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder without hidden ones; an empty result where there is no folder.

    Raises:
        StorageError: it may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise StorageError(f"{folder} cannot be read ({error.strerror}); ask its owner to let you read it") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            return []
        if is_out_of_files(error):
            raise no_more_files(folder) from error
        raise StorageError(f"{folder} cannot be read ({error.strerror}); name another folder") from error


def move_aside(path: Path, folder: Path) -> None:
    """Move anything at `path` into a folder, under a name that is free there; do nothing if `path` is empty.

    Raises:
        StorageError: the folder cannot be written.
    """
    make_folder(folder)
    with explained(folder), suppress(FileNotFoundError):
        taken = 1
        target = folder / path.name
        while os.path.lexists(target):
            taken += 1
            target = folder / f"{path.name}.{taken}"
        path.rename(target)


def temporary_beside(path: Path) -> Path:
    """Return a name for a temporary file in the folder of `path` that no other process uses."""
    process = os.getpid()
    own = f"{process}-{_started(process)}"
    return path.with_name(f".{path.name}.{_machine()}.{own}.{_start_of_job()}.{uuid4().hex[:8]}.tmp")


@lru_cache(maxsize=1)
def _started(this_process: int) -> int | None:
    return process_started(this_process)  # constant for this process


def _machine() -> str:
    return f"{host_name()}-{process_namespace()}"


def _start_of_job() -> str:
    """Return the identity of this start of the Slurm job, which may be requeued; 0 outside of a job."""
    job = slurm_job()
    return f"{job}r{os.environ.get('SLURM_RESTART_COUNT', '0')}" if job else "0"


def remove_leftovers(root: Path, *, ended_nodes: Collection[str] = ()) -> None:
    """Remove temporary files below `root` that killed processes left, if permissions allow it.

    It detects dead processes on this machine only; for other machines the caller has to name the nodes.

    Args:
        root: the folder.
        ended_nodes: nodes on which no process of this start of this Slurm job is alive.
    """
    here = re.compile(rf"\..+\.{re.escape(_machine())}\.(\d+)-(\w+)\.\w+\.\w+\.tmp")
    nodes = "|".join(map(re.escape, ended_nodes))
    ended = re.compile(rf"\..+\.(?:{nodes})-\d+\.\d+-\w+\.{_start_of_job()}\.\w+\.tmp")
    for path in root.rglob(".*.tmp"):
        by_one_here = here.fullmatch(path.name)
        # A later process may have the number of a dead one, but not its start time.
        by_the_dead = by_one_here and str(process_started(int(by_one_here[1]))) != by_one_here[2]
        if by_the_dead or (nodes and ended.fullmatch(path.name)):
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


def replace(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Create or replace `path` in one step; a reader sees the old content or the new, never a mixture.

    Args:
        path: the path.
        content: its new content.
        durable: whether to wait until it is on the disk, where a power cut leaves it.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    temporary = temporary_beside(path)
    with explained(path):
        try:
            _write(temporary, content, durable=durable)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
