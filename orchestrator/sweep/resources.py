"""Resources of a stage in this process: limits on threads, and measurement of memory."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from finetune.parallel.memory import give_back
from ntk_dist.device.bits import same_bits
from orchestrator.spec.compute_section import ComputeSection

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
"""Environment variables from which libraries of linear algebra read their number of threads when they are loaded."""


class _ThisProcess:
    """What is known of this process.

    Attributes:
        settled: its least resident memory, in bytes, since it last gave memory back.
    """

    settled: float = math.inf


@contextmanager
def fixed_sums(compute: ComputeSection) -> Iterator[None]:
    """Make processors and GPUs sum in the order that a spec fixes."""
    with limited_threads(compute.threads), same_bits(compute.device == "cuda" and compute.deterministic):
        yield


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Give every library of linear algebra the same number of threads: sums depend on it in the last bit.

    Libraries that are loaded inside the context are included: a stage may be the first of its process to need one.
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
    """Return the controller of the loaded libraries' threads, cached: finding them takes longer than a small stage.

    Args:
        n_modules: number of loaded modules; a new module may have loaded a new library.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def reset_peak_memory(spared: int = 0) -> bool:
    """Reset the measured peak of memory where the kernel allows it (Linux); return whether it does.

    Memory that was freed before is given back first: where holes of a stage's heap do not fit the blocks of the next,
    that one would take as much again, and exceed its budget.

    Args:
        spared: bytes by which the process may have grown before it gives memory back again: the system clears every
            page that it hands out, which takes a fifth of the time of small stages that come one after the other.
    """
    try:
        resident = resident_memory()
        if not spared or resident - _ThisProcess.settled > spared:
            give_back()
            _ThisProcess.settled = resident_memory()
        else:
            _ThisProcess.settled = min(_ThisProcess.settled, resident)
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory() -> int:
    """Return the most resident memory, in bytes, since `reset_peak_memory`."""
    try:
        return _memory(b"VmHWM:")
    except (OSError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_memory() -> int:
    """Return the resident memory of the process, in bytes.

    Raises:
        OSError: the system does not report it (not Linux).
    """
    return _memory(b"VmRSS:")


def _memory(name: bytes) -> int:
    """Return a figure of /proc/self/status in bytes."""
    return int(Path("/proc/self/status").read_bytes().partition(name)[2].split(maxsplit=1)[0]) * 1024
