"""What a stage may use and what it used: threads and memory of this process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from ntk_dist.device.bits import same_bits
from orchestrator.spec.compute_section import ComputeSection

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
"""Where a library of linear algebra looks for its number of threads when it is loaded."""


@contextmanager
def fixed_sums(compute: ComputeSection) -> Iterator[None]:
    """Have processors and GPUs sum in the order that a spec fixes."""
    with limited_threads(compute.threads), same_bits(compute.device == "cuda" and compute.deterministic):
        yield


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Give every library of linear algebra the same number of threads: sums depend on it in the last bit.

    Also those that are loaded only inside: a stage may be the first of its process that needs one.
    """
    import torch

    before = torch.get_num_threads()
    variables = {name: os.environ.get(name) for name in _VARIABLES}
    torch.set_num_threads(threads)
    os.environ.update(dict.fromkeys(_VARIABLES, str(threads)))
    try:
        with _loaded_libraries(len(sys.modules)).limit(limits=threads):
            yield
    finally:
        torch.set_num_threads(before)
        for name, value in variables.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@lru_cache(maxsize=1)
def _loaded_libraries(n_modules: int) -> Any:
    """Return what sets the threads of the libraries that are loaded; to find them takes longer than a small stage.

    Args:
        n_modules: modules that are loaded: with a new one a new library may have come.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def reset_peak_memory() -> bool:
    """Begin to measure the peak anew, where the kernel allows it (Linux); tell whether it does."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory() -> int:
    """Return the most resident memory, in bytes, since `reset_peak_memory`."""
    try:
        status = Path("/proc/self/status").read_bytes()
        return int(status.partition(b"VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    except (OSError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
