"""Return of freed memory to the system: otherwise the process would keep that of freed layers and batches."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

_MMAP_THRESHOLD = -3
_LARGE = 1 << 20

_FILLING = 64 << 10
"""Bytes of blocks that fill a heap: glibc maps none that is so small by itself."""

_AT_ONCE = 256
"""Such blocks between two looks at the size of the heaps, for which glibc goes through all that is free in them."""


@lru_cache(maxsize=1)
def keep_large_blocks_apart() -> None:
    """Have glibc map every block of 1 MiB and more by itself, which it then gives back as soon as it is freed.

    By default it takes blocks up to 32 MiB from its heap, where whole layers that come and go leave holes between
    activations that stay: measured, a process came to hold several times what it was using. Larger limits keep more
    (see docs/benchmarks.md), and cost less time, as the system clears every page that it hands out.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)


def give_back() -> None:
    """Give free memory of the heap back to the system, which takes about a millisecond."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@contextmanager
def full_heap() -> Iterator[None]:
    """Hold what is free in the heap of this thread, so that large blocks that it takes meanwhile are new to the system.

    `give_back` leaves the end of a heap as it is where that belongs to a thread, or where something else lies behind
    it: up to 64 MiB that are free, and still in memory.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.malloc.restype = ctypes.c_void_p
    libc.mallinfo.restype = _HeapSizes
    held: list[ctypes.c_void_p] = []
    size = libc.mallinfo().arena
    while libc.mallinfo().arena == size:
        held.extend(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(_FILLING))) for _ in range(_AT_ONCE))
    try:
        yield
    finally:
        for block in held:
            libc.free(block)


class _HeapSizes(ctypes.Structure):
    """What glibc's `mallinfo` returns, modulo 2^32: `arena` has the bytes of all heaps, free ones with them."""

    _fields_ = (("arena", ctypes.c_int), ("others", ctypes.c_int * 9))


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "malloc_trim") else None
