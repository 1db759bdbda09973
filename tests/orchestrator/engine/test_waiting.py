"""Executors with nothing to compute: a run that waits for others must not use a processor for it."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.engine.executors.base import Executor
from orchestrator.engine.executors.inline import InlineExecutor
from orchestrator.engine.executors.local_ray import LocalRay
from orchestrator.engine.executors.ray_workers import RayExecutor
from orchestrator.sweep.folder import ResultsFolder, Sweep
from tests.orchestrator.sweeps import sweep_of


def ray_executor(sweep: Sweep, folder: ResultsFolder) -> RayExecutor:
    return RayExecutor(sweep, folder, LocalRay(1))


@pytest.mark.parametrize("make", [InlineExecutor, ray_executor])
def test_an_executor_with_nothing_in_flight_lets_the_time_pass(
    make: Callable[[Sweep, ResultsFolder], Executor], tmp_path: Path
) -> None:
    executor = make(sweep_of(), ResultsFolder(tmp_path))
    executor.next_outcome(0.0)  # loads what it needs
    started = time.monotonic()
    assert executor.next_outcome(0.05) is None
    assert time.monotonic() - started >= 0.05
