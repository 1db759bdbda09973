"""Files that this process or another opens, as the kernel tells: libraries in C++ open theirs past Python's hooks."""

import ctypes
import os
import struct
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_IN_OPEN = 0x20
_HEADER = struct.Struct("iIII")


class Opened:
    """Record of everything that is opened below a folder: files, and folders that are listed, also by links."""

    def __init__(self, root: Path) -> None:
        self._file = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._file >= 0, os.strerror(ctypes.get_errno())
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
        self._watched = {_LIBC.inotify_add_watch(self._file, os.fsencode(path), _IN_OPEN): path for path in folders}
        self.taken()  # what the search for folders has opened itself

    def taken(self) -> list[Path]:
        """Return what was opened since the last call."""
        found = []
        while True:
            try:
                content = os.read(self._file, 1 << 16)
            except BlockingIOError:
                return sorted(set(found))
            while content:
                watch, _, _, length = _HEADER.unpack_from(content)
                name = content[_HEADER.size : _HEADER.size + length].rstrip(b"\0")
                found.append(self._watched[watch] / os.fsdecode(name))
                content = content[_HEADER.size + length :]

    def close(self) -> None:
        os.close(self._file)
