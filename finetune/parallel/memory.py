"""Return of freed memory to the system: otherwise the process would keep that of freed layers and batches."""

import ctypes
from functools import lru_cache

_MMAP_THRESHOLD = -3
_LARGE = 1 << 20


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


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "malloc_trim") else None
