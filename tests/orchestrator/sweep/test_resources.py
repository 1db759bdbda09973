"""When freed memory is given back to the system, and what is measured after it."""

import sys

import numpy as np
import pytest

from orchestrator.sweep import resources
from orchestrator.sweep.resources import peak_memory, reset_peak_memory, resident_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is reset by Linux alone")

MB = 10**6


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Resident memory at each time that memory is given back."""
    seen: list[int] = []
    really = resources.give_back

    def noted() -> None:
        seen.append(resident_memory())
        really()

    monkeypatch.setattr(resources, "give_back", noted)
    return seen


def test_memory_is_given_back_once_the_process_has_grown_by_what_is_spared(given_back: list[int]):
    assert reset_peak_memory()
    assert reset_peak_memory(spared=100 * MB)
    assert len(given_back) == 1
    held = [np.ones(40 * MB // 8)]
    reset_peak_memory(spared=100 * MB)
    assert len(given_back) == 1
    held += [np.ones(80 * MB // 8)]
    reset_peak_memory(spared=100 * MB)
    assert len(given_back) == 2
    # What stays after it was given back is held for a reason, and no cause to try again at each stage.
    reset_peak_memory(spared=100 * MB)
    assert len(given_back) == 2
    assert held


def test_the_peak_is_that_since_the_reset():
    np.ones(200 * MB // 8)
    reset_peak_memory(spared=1000 * MB)
    assert peak_memory() < resident_memory() + 20 * MB
    before = peak_memory()
    np.ones(50 * MB // 8)
    assert 40 * MB < peak_memory() - before < 70 * MB
