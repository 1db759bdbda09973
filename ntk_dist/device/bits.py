"""The same bits each time on a GPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Where cuBLAS reads what memory it has for sums; of any other it may take now one and now another algorithm."""

FIXED_WORKSPACE = ":4096:8"


@contextmanager
def same_bits(wanted: bool) -> Iterator[None]:
    """Have a GPU sum in the same order each time, where that is `wanted`, and restore afterwards what was set.

    What has no such algorithm raises a RuntimeError that names itself.
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
    memory.fill_uninitialized_memory = False  # it shows mistakes, and takes a pass over all memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
        memory.fill_uninitialized_memory = filled
