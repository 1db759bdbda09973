"""Sweeps on the processor, and the same on a device that is pretended."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from tests.pretended_device import install

Pretending = Callable[..., Any]
"""Calls a function with arguments in the process that has the device; returns what it returned."""


@pytest.fixture(scope="session")
def pretending() -> Iterator[Pretending]:
    """Call functions in a process that has the device, which torch lets no process get rid of."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=install) as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result()
