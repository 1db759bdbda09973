from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_dist.errors import NtkError
from ntk_dist.jacobian.batches import length_buckets, pad

lengths_lists = st.lists(st.integers(1, 60), min_size=1, max_size=60)


@given(lengths_lists, st.integers(1, 200), st.sampled_from([None, 0, 20]))
def test_every_example_stands_in_one_batch_within_the_limit(lengths, batch_tokens, pass_tokens):
    batches = length_buckets(lengths, batch_tokens=batch_tokens, pass_tokens=pass_tokens)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= batch_tokens or len(batch) == 1


@given(lengths_lists, st.integers(1, 200))
def test_batches_are_as_full_as_greed_makes_them(lengths, batch_tokens):
    batches = length_buckets(lengths, batch_tokens=batch_tokens)
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * lengths[following[0]] > batch_tokens


def cost(lengths, cuts, pass_tokens):
    return sum(pass_tokens + (stop - start) * max(lengths[start:stop]) for start, stop in cuts)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 90), st.integers(0, 60), st.integers(1, 8))
def test_no_other_batches_cost_less(lengths, batch_tokens, pass_tokens, most):
    """All ways to cut the sorted examples are tried."""
    batches = length_buckets(lengths, batch_tokens=batch_tokens, batch_size=most, pass_tokens=pass_tokens)
    ordered, n = sorted(lengths), len(lengths)
    ways = ([0, *inner, n] for size in range(n) for inner in combinations(range(1, n), size))
    allowed = [
        cuts
        for cuts in map(list, map(pairwise, ways))
        if all(
            stop - start == 1 or (stop - start <= most and (stop - start) * ordered[stop - 1] <= batch_tokens)
            for start, stop in cuts
        )
    ]
    ends = np.cumsum([0, *map(len, batches)]).tolist()
    assert [lengths[position] for batch in batches for position in batch] == ordered
    assert cost(ordered, pairwise(ends), pass_tokens) == min(cost(ordered, cuts, pass_tokens) for cuts in allowed)


def test_ties_keep_their_order():
    batches = length_buckets([5, 3, 5, 3, 5], batch_tokens=10)
    assert [batch.tolist() for batch in batches] == [[1, 3], [0, 2], [4]]


def test_many_ties_keep_their_order():
    # sorts that are not stable look so on a handful of numbers
    batches = length_buckets([3, 5] * 200, batch_tokens=10**6)
    assert batches[0].tolist() == [*range(0, 400, 2), *range(1, 400, 2)]


def test_no_examples_make_no_batches():
    assert length_buckets([], batch_tokens=10) == length_buckets([], batch_tokens=10, pass_tokens=5) == []


@pytest.mark.parametrize(("lengths", "batch_tokens"), [([3, 0], 10), ([3], 0)])
def test_what_cannot_be_batched_is_refused(lengths, batch_tokens):
    with pytest.raises(NtkError, match="at least 1"):
        length_buckets(lengths, batch_tokens=batch_tokens)


def test_padding_is_on_the_right_and_masked():
    batch = pad([np.array([7, 8, 9]), np.array([5])], pad_id=4, token_types=[np.array([0, 0, 1]), np.array([1])])
    assert batch.input_ids.tolist() == [[7, 8, 9], [5, 4, 4]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert batch.last_positions.tolist() == [2, 0]
    assert len(batch) == 2


def test_an_empty_sequence_cannot_be_padded():
    with pytest.raises(NtkError, match="at least one token"):
        pad([np.array([1]), np.array([], dtype=int)], pad_id=0)


@given(st.lists(st.integers(1, 40), max_size=50), st.integers(1, 9))
def test_a_bound_on_examples_is_kept_and_nothing_is_lost(lengths, most):
    batches = length_buckets(lengths, batch_tokens=64, batch_size=most)
    assert all(len(batch) <= most for batch in batches)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
