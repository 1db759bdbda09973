"""Memory that a stage freed is given back before the next one, unless there is little of it beside the budget."""

import numpy as np
import pytest

from orchestrator.sweep.resources import KEPT_SHARE, reset_peak_memory, resident_memory

SIZE = 80_000
"""Bytes of a block that glibc takes from its heap, whatever its limits are."""


@pytest.mark.parametrize("budget, given_back", [(0, True), (20 * 10**6, True), (10**10, False)])
def test_holes_in_the_heap_are_given_back_where_the_budget_is_small(budget: int, given_back: bool):
    blocks = [np.ones(SIZE // 8) for _ in range(1000)]
    reset_peak_memory()
    del blocks[::2]  # neighbors stay, so that nothing is given back by itself
    before = resident_memory()
    assert reset_peak_memory(budget)
    holes = len(blocks) * SIZE
    assert (before - resident_memory() > holes / 2) == given_back
    assert (holes > KEPT_SHARE * budget) == given_back
