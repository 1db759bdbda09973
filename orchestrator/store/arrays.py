"""Array files in the safetensors format, written piece by piece and read through memory maps.

The safetensors library writes a file from arrays that all are in memory; a shard of Jacobians need not fit there,
so this module lays the format out itself: eight bytes that give the header's length, a JSON header, then the arrays.
"""

import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from orchestrator.store.checksums import ALGORITHM, checksum_of
from orchestrator.store.files import explained, open_plain

Array = np.ndarray[Any, np.dtype[Any]]
Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name of each array: numpy dtype name and shape."""

_SAFETENSORS_NAME = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_NUMPY_NAME = {name: dtype for dtype, name in _SAFETENSORS_NAME.items()}
HEADER = "__header__"
"""The name under which checksums list the file's header."""

_PIECE = 1 << 20
_LONGEST_HEADER = 100_000_000  # bytes; the safetensors library has the same limit
_ALIGNMENT = 64  # bytes; vector instructions give the same sums only from the same alignment


class ArrayFile:
    """A safetensors file whose arrays are filled in any order, without holding them in memory.

    Args:
        path: where it is.
        layout: what it holds.
        new: create it; else another process has, with the same layout, and will finish or discard it.
    """

    def __init__(self, path: Path, layout: Layout, *, new: bool = True) -> None:
        self.path = path
        self._layout = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in layout.items()}
        header, self._offsets, size = _header(self._layout)
        self._start = len(header)
        self._new = new
        with explained(path):
            self._file = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if new else 0), 0o666)
            if new:
                self._reserve(header, size)

    def _reserve(self, header: bytes, size: int) -> None:
        try:
            _write_all(self._file, memoryview(header), 0)
            if size:
                # Reserving the space now makes a full disk an error here instead of a signal later.
                os.posix_fallocate(self._file, len(header), size)
        except OSError:
            self.discard()  # what little was reserved is needed by others
            raise

    def write(self, name: str, array: Array, row: int = 0) -> None:
        """Write `array` over the rows of array `name` that begin at `row`."""
        dtype, shape = self._layout[name]
        row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        content = np.ascontiguousarray(array, dtype=dtype)
        if content.shape[1:] != shape[1:] or not 0 <= row <= shape[0] - content.shape[0]:
            raise ValueError(f"an array of shape {content.shape} does not fit {name} {shape} at row {row}")
        if not content.size:
            return
        with explained(self.path):
            _write_all(self._file, content.data.cast("B"), self._start + self._offsets[name] + row * row_bytes)

    def flush(self) -> None:
        """Bring what was written to the disk, where other processes find it."""
        with explained(self.path):
            os.fsync(self._file)

    def finish(self) -> dict[str, str]:
        """Flush the file to the disk, close it, and return the checksums of the header and of each array."""
        self.flush()
        with explained(self.path):
            os.close(self._file)
        self._file = -1
        reader = ArrayReader(self.path)
        return {name: reader.checksum(name) for name in (HEADER, *self._layout)}

    def discard(self) -> None:
        """Close the file, and remove it if it was created here."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._new:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class ArrayReader:
    """The arrays of a safetensors file, each mapped into memory only while it is held.

    Attributes:
        path: where the file is.
        size: its bytes.

    Raises:
        OSError: it is not there, may not be read, or is no file itself.
        ValueError: its header cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_plain(path) as stream:
            self.size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            if length > min(self.size, _LONGEST_HEADER):
                raise ValueError(f"{path.name} is shorter than its header says")
            self._header = _entries(stream.read(length))
        self._start = 8 + length

    def names(self) -> list[str]:
        """Return the names of the arrays, in the file's order."""
        return list(self._header)

    def checksum(self, name: str, algorithm: str = ALGORITHM) -> str:
        """Return the checksum of one array's bytes, or of the `HEADER`, reading the file in pieces.

        Raises:
            OSError: the file is gone.
            ValueError: the algorithm is not known.
        """
        start, stop = 0, self._start
        if name != HEADER:
            start, stop = (self._start + offset for offset in self._header[name]["data_offsets"])
        return checksum_of(_pieces(self.path, start, stop), algorithm)

    def array(self, name: str) -> Array:
        """Map the array `name` into memory, read-only; its pages are released with the returned array."""
        entry = self._header[name]
        dtype, shape = np.dtype(_NUMPY_NAME[entry["dtype"]]), tuple(entry["shape"])
        if 0 in shape:
            return np.empty(shape, dtype)
        with open_plain(self.path) as stream:
            return np.memmap(stream, dtype, "r", self._start + entry["data_offsets"][0], shape)


@lru_cache(maxsize=128)
def _entries(header: bytes) -> dict[str, Any]:
    # Thousands of tiles have one layout; those that a process holds open share what it says.
    try:
        entries = dict(json.loads(header))
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    entries.pop("__metadata__", None)
    return entries


def _pieces(path: Path, start: int, stop: int) -> Iterator[bytes]:
    with open_plain(path) as stream:
        stream.seek(start)
        while start < stop and (piece := stream.read(min(_PIECE, stop - start))):
            yield piece
            start += len(piece)


def _header(layout: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> tuple[bytes, dict[str, int], int]:
    entries: dict[str, Any] = {}
    offsets: dict[str, int] = {}
    end = 0
    for name, (dtype, shape) in layout.items():
        start, end = end, end + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        offsets[name] = start
        entries[name] = {
            "dtype": _SAFETENSORS_NAME[dtype.name], "shape": list(shape), "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, offsets, end


def _write_all(file: int, content: memoryview, offset: int) -> None:
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written
