"""The rank from which on LoRA has no spurious local minima."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_dist.spectrum.lora_rank import SampleSizeError, rank_threshold


@given(st.integers(min_value=1, max_value=10**12), st.integers(min_value=1, max_value=10**4))
def test_the_threshold_is_the_smallest_rank_above_it(n_examples: int, n_outputs: int):
    r = rank_threshold(n_examples, n_outputs)
    assert r * (r + 1) // 2 > n_examples * n_outputs >= (r - 1) * r // 2


def test_numbers_made_of_a_whole_triangle_are_not_above_themselves():
    # 1 + 2 + 3 = 6: rank 3 gives exactly 6, which is not more than 6.
    assert [rank_threshold(n, 1) for n in (1, 5, 6, 9, 10)] == [2, 3, 4, 4, 5]
    assert rank_threshold(32, 2) == rank_threshold(64, 1) == 11


@pytest.mark.parametrize(("n_examples", "n_outputs"), [(0, 1), (1, 0), (-3, 2)])
def test_nothing_has_no_threshold(n_examples: int, n_outputs: int):
    with pytest.raises(SampleSizeError, match="needs examples and outputs"):
        rank_threshold(n_examples, n_outputs)
