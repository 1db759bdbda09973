"""Results on a GPU that have the same bits each time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Variable from which cuBLAS reads its workspace for sums; without a fixed one it may change its algorithm."""

FIXED_WORKSPACE = ":4096:8"


@contextmanager
def same_bits(wanted: bool) -> Iterator[None]:
    """Make a GPU sum in the same order each time, where that is `wanted`, and restore the settings afterwards.

    An operation without such an algorithm raises a RuntimeError that names the operation.
    """
    if not wanted:
        yield
        return
    import torch

    memory: Any = torch.utils.deterministic
    # Warnings in place of errors would have attention keep its faster backward pass, which adds in any order.
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = memory.fill_uninitialized_memory
    os.environ.setdefault(WORKSPACE, FIXED_WORKSPACE)
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # filling helps to find mistakes only, and takes a pass over all memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
        memory.fill_uninitialized_memory = filled
