"""Allocations are split over job arrays as the cluster's limits ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm.errors import SubmissionLimitError
from slurm.submit.submission import array_sizes

COUNTS = st.integers(1, 100_000)
FREE = st.one_of(st.none(), st.integers(1, 100_000))


@given(COUNTS, st.integers(0, 5_000), FREE)
def test_arrays_hold_all_allocations_that_may_be_queued_and_none_is_too_large(count: int, most: int, free: int | None):
    sizes = array_sizes(count, max_array_size=most, free_submissions=free)
    assert sum(sizes) == (count if free is None else min(count, free))
    assert all(1 <= size <= max(1, most) for size in sizes)


@given(COUNTS, st.integers(1, 5_000), FREE)
def test_there_are_as_few_arrays_as_possible(count: int, most: int, free: int | None):
    sizes = array_sizes(count, max_array_size=most, free_submissions=free)
    assert all(size == most for size in sizes[:-1])


@pytest.mark.parametrize(
    ("count", "most", "free", "sizes"),
    [
        (1, 1001, None, [1]),
        (1001, 1001, None, [1001]),
        (1002, 1001, None, [1001, 1]),
        (10, 4, None, [4, 4, 2]),
        (10, 4, 5, [4, 1]),
        (3, 0, None, [1, 1, 1]),
    ],
)
def test_allocations_are_split_at_the_largest_array(count: int, most: int, free: int | None, sizes: list[int]):
    assert array_sizes(count, max_array_size=most, free_submissions=free) == sizes


@given(COUNTS, st.integers(-5, 0))
def test_nothing_is_submitted_where_nothing_may_be_queued(count: int, free: int):
    with pytest.raises(SubmissionLimitError, match="you have as many jobs queued as this cluster lets you have"):
        array_sizes(count, max_array_size=1001, free_submissions=free)
