"""Array files in the safetensors format, written piece by piece and read through memory maps.

The safetensors library writes a file from arrays that are all in memory; a shard of Jacobians need not fit there,
so this module writes the format itself: eight bytes that give the header's length, a JSON header, then the arrays.
"""

import json
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.batched import Array, BatchedLayout, BatchedRows
from orchestrator.store.checksums import ALGORITHM, checksum_of, joined
from orchestrator.store.files import explained, open_plain

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name of each array: numpy dtype name and shape."""

Written = dict[str, dict[int, str]]
"""Checksums of the parts of each array, by the number of their batch; 0 for an array without batches."""

_SAFETENSORS_NAME = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_NUMPY_NAME = {name: dtype for dtype, name in _SAFETENSORS_NAME.items()}
HEADER = "__header__"
"""The name under which checksums list the file's header."""

BATCHES = "__batches__"
"""The name of the array, with one axis, that holds all batches of a `BatchedLayout`, one after the other."""

_METADATA = "__metadata__"
_PIECE = 1 << 20
_LONGEST_HEADER = 100_000_000  # bytes; the safetensors library has the same limit
_ALIGNMENT = 64  # bytes; vector instructions give the same sums only from the same alignment
_MOST_BUFFERS = min(1024, os.sysconf("SC_IOV_MAX"))  # that the system writes at once


class ArrayFile:
    """A safetensors file whose arrays are filled in any order, each once, without holding them in memory.

    Checksums are computed from the data in memory as it is written: nothing is read again.

    Args:
        path: its path.
        layout: its arrays.
        batched: further arrays, which are written batch after batch.
        new: create it; else another process has created it with the same layout, and will finish or discard it.
    """

    def __init__(self, path: Path, layout: Layout, batched: BatchedLayout | None = None, *, new: bool = True) -> None:
        self.path = path
        self._layout = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in layout.items()}
        self._batched = batched
        self._header, self._offsets, size = _header(self._layout, batched)
        self._new = new
        self.written: Written = {}
        with explained(path):
            self._file = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if new else 0), 0o666)
            if new:
                self._reserve(size)

    def _reserve(self, size: int) -> None:
        try:
            _write_all(self._file, [memoryview(self._header)], 0)
            if size:
                # Reserving the space now makes a full disk an error here instead of a signal later.
                os.posix_fallocate(self._file, len(self._header), size)
        except OSError:
            self.discard()  # frees the space that was reserved
            raise

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Write whole arrays; neighbors in the file are written at once."""
        contents: list[memoryview] = []
        first = end = 0
        for name in sorted(arrays, key=self._offsets.__getitem__):
            dtype, shape = self._layout[name]
            content = _content(name, arrays[name], dtype, shape)
            if contents and self._offsets[name] != end:
                self._put(contents, first)
                contents = []
            first = first if contents else self._offsets[name]
            end = self._offsets[name] + len(content)
            contents.append(content)
            self._note(name, 0, content)
        self._put(contents, first)

    def write_batch(self, number: int, arrays: Mapping[str, Array]) -> None:
        """Write at once the part of every batched array that belongs to batch `number`, (its rows, columns)."""
        assert self._batched is not None
        dtype = np.dtype(self._batched.dtype)
        contents = []
        for name in self._batched.arrays:
            content = _content(name, arrays[name], dtype, self._batched.part(number, name)[1])
            contents.append(content)
            self._note(name, number, content)
        start = self._batched.part(number, next(iter(self._batched.arrays)))[0]
        self._put(contents, self._offsets[BATCHES] + start * dtype.itemsize)

    def _note(self, name: str, number: int, content: memoryview) -> None:
        self.written.setdefault(name, {})[number] = checksum_of([content])

    def _put(self, contents: Sequence[memoryview], offset: int) -> None:
        with explained(self.path):
            _write_all(self._file, contents, len(self._header) + offset)

    def also_written(self, by_others: Written) -> None:
        """Add the parts that other processes wrote into the same file."""
        for name, parts in by_others.items():
            self.written.setdefault(name, {}).update(parts)

    def flush(self) -> None:
        """Flush written data to the disk, where other processes can read it."""
        with explained(self.path):
            os.fsync(self._file)

    def finish(self) -> dict[str, str]:
        """Flush the file to the disk, close it, and return the checksums of the header and of each array.

        Raises:
            ValueError: a part of it was never written.
        """
        checksums = {HEADER: checksum_of([self._header])}
        n_batches = len(self._batched.batches) if self._batched else 0
        parts = dict.fromkeys(self._layout, 1) | dict.fromkeys(self._batched.arrays if self._batched else (), n_batches)
        for name, count in parts.items():
            written = self.written.get(name, {})
            if written.keys() != set(range(count)):
                raise ValueError(f"{name} was not written whole")
            checksums[name] = joined([written[number] for number in range(count)])
        self.flush()
        with explained(self.path):
            os.close(self._file)
        self._file = -1
        return checksums

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
    """The arrays of a safetensors file, each mapped into memory only while it is in use.

    Attributes:
        path: path of the file.
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
            self._entries, self._batched = _entries(stream.read(length))
        self._start = 8 + length
        if any(entry["data_offsets"][1] > self.size - self._start for entry in self._entries.values()):
            raise ValueError(f"{path.name} is shorter than its header says")

    def names(self) -> list[str]:
        """Return the names of the arrays, in the file's order."""
        plain = [name for name in self._entries if name != BATCHES]
        return plain + list(self._batched.arrays if self._batched else ())

    def places(self, name: str) -> list[tuple[int, int]]:
        """Return the places in the file of the bytes of one array, or of the `HEADER`, as ranges [start, stop)."""
        if name == HEADER:
            return [(0, self._start)]
        if self._batched is None or name not in self._batched.arrays:
            start, stop = self._entries[name]["data_offsets"]
            return [(self._start + start, self._start + stop)]
        begin = self._start + self._entries[BATCHES]["data_offsets"][0]
        itemsize = np.dtype(self._batched.dtype).itemsize
        parts = [self._batched.part(batch, name) for batch in range(len(self._batched.batches))]
        return [
            (begin + first * itemsize, begin + (first + rows * columns) * itemsize) for first, (rows, columns) in parts
        ]

    def checksum(self, name: str, algorithm: str = ALGORITHM) -> str:
        """Return the checksum of one array's bytes, or of the `HEADER`, reading the file in pieces.

        Raises:
            OSError: the file is gone.
            ValueError: the algorithm is not known.
        """
        with open_plain(self.path) as stream:
            found = [checksum_of(_pieces(stream, *place), algorithm) for place in self.places(name)]
        return joined(found, algorithm)

    def array(self, name: str) -> Array:
        """Return the array `name`, read-only, mapped into memory; one written in batches is read into memory.

        The pages of a mapped array are released with it.
        """
        found = self.rows(name)
        if isinstance(found, np.ndarray):
            return found
        whole = found.whole()
        whole.flags.writeable = False
        return whole

    def read(self, names: Sequence[str], algorithm: str = ALGORITHM) -> dict[str, tuple[Array, str]]:
        """Return arrays that were written whole, with checksums, read into memory from a file that is opened once.

        Raises:
            OSError: the file is gone.
            ValueError: it is cut short, or the algorithm is not known.
        """
        found = {}
        with open_plain(self.path) as stream:
            for name in names:
                ((start, stop),), entry = self.places(name), self._entries[name]
                content = _memory_for(start, stop)
                checksum = checksum_of(_read_into(content, stream, start), algorithm)
                array = content.view(_NUMPY_NAME[entry["dtype"]]).reshape(entry["shape"])
                array.flags.writeable = False
                found[name] = array, checksum
        return found

    def is_whole(self, name: str) -> bool:
        """Tell whether an array was written whole, not in batches."""
        return name in self._entries and name != BATCHES

    def rows(self, name: str) -> Array | BatchedRows:
        """Return the array `name` as `array` does, but an array written in batches as rows that are read later."""
        if self._batched is not None and name in self._batched.arrays:
            return BatchedRows(self._batched, name, self._mapped(BATCHES))
        return self._mapped(name)

    def _mapped(self, name: str) -> Array:
        entry = self._entries[name]
        dtype, shape = np.dtype(_NUMPY_NAME[entry["dtype"]]), tuple(entry["shape"])
        if 0 in shape:
            return np.empty(shape, dtype)
        with open_plain(self.path) as stream:
            return np.memmap(stream, dtype, "r", self._start + entry["data_offsets"][0], shape)


@lru_cache(maxsize=128)
def _entries(header: bytes) -> tuple[dict[str, Any], BatchedLayout | None]:
    # Thousands of tiles have one layout; the open files of a process share the parsed header.
    try:
        entries = dict(json.loads(header))
        layout = entries.pop(_METADATA, {}).get(BATCHES)
        if not all(map(_is_entry, entries.values())):
            raise ValueError("its header says of an array what none can be")
        dtype = _NUMPY_NAME[entries[BATCHES]["dtype"]] if layout else ""
        return entries, BatchedLayout.from_text(layout, dtype) if layout else None
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("its header is no header of arrays") from error


def _is_entry(found: Any) -> bool:
    """Tell whether a header's entry is that of an array, whose bytes are as many as its shape says."""
    try:
        start, stop = found["data_offsets"]
        shape = found["shape"]
        numbers = (start, stop, *shape)
        itemsize = np.dtype(_NUMPY_NAME[found["dtype"]]).itemsize
        return all(type(each) is int and each >= 0 for each in numbers) and stop - start == itemsize * math.prod(shape)
    except (KeyError, TypeError, ValueError):
        return False


@cache
def name_of(dtype: np.dtype[Any]) -> str:
    """Return numpy's name of a dtype, cached because numpy takes long to find it."""
    return dtype.name


def _memory_for(start: int, stop: int) -> NDArray[np.uint8]:
    """Return memory for a range of a file, aligned as it would be if the file were mapped."""
    memory = np.empty(stop - start + _ALIGNMENT, np.uint8)
    skipped = (start - memory.ctypes.data) % _ALIGNMENT
    return memory[skipped : skipped + stop - start]


def _read_into(content: NDArray[np.uint8], stream: BinaryIO, start: int) -> Iterator[memoryview]:
    """Yield the pieces of `content`, each after it was read from its place in the file."""
    stream.seek(start)
    left = content.data
    while left:
        read = os.readv(stream.fileno(), [left[:_PIECE]])
        if not read:
            raise ValueError("it is cut short")
        yield left[:read]
        left = left[read:]


def _pieces(stream: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    stream.seek(start)
    while start < stop and (piece := stream.read(min(_PIECE, stop - start))):
        yield piece
        start += len(piece)


def _header(
    layout: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], batched: BatchedLayout | None
) -> tuple[bytes, dict[str, int], int]:
    """Return the header, the start of each array after it, and the bytes of all arrays."""
    whole = dict(layout)
    entries: dict[str, Any] = {}
    if batched is not None:
        whole[BATCHES] = np.dtype(batched.dtype), (batched.size,)
        entries[_METADATA] = {BATCHES: batched.to_text()}
    offsets: dict[str, int] = {}
    end = 0
    for name, (dtype, shape) in whole.items():
        start, end = end, end + dtype.itemsize * math.prod(shape)
        offsets[name] = start
        entries[name] = {
            "dtype": _SAFETENSORS_NAME[name_of(dtype)], "shape": list(shape), "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, offsets, end


def _content(name: str, array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> memoryview:
    """Return the bytes of an array as a file holds them."""
    content = np.ascontiguousarray(array, dtype=dtype).reshape(np.shape(array))
    if content.shape != shape:
        raise ValueError(f"an array of shape {content.shape} does not fit {name} {shape}")
    return content.reshape(-1).view(np.uint8).data


def _write_all(file: int, contents: Sequence[memoryview], offset: int) -> None:
    waiting = deque(content for content in contents if content)
    while waiting:
        written = os.pwritev(file, list(islice(waiting, _MOST_BUFFERS)), offset)
        offset += written
        while waiting and written >= len(waiting[0]):
            written -= len(waiting.popleft())
        if written:
            waiting[0] = waiting[0][written:]
