"""Pauses grow by their factor up to the longest, and begin again where something has changed."""

from hypothesis import given
from hypothesis import strategies as st

from slurm.pauses import Pauses


@given(first=st.floats(0.01, 10), times=st.floats(1, 1000), factor=st.floats(1.01, 4), taken=st.integers(1, 40))
def test_each_is_longer_by_the_factor_until_the_longest(first: float, times: float, factor: float, taken: int):
    longest = first * times
    pauses = Pauses(first, longest, factor=factor)
    found = [pauses.take() for _ in range(taken)]
    expected = [min(first * factor**number, longest) for number in range(taken)]
    assert all(abs(one - other) <= 1e-9 * other for one, other in zip(found, expected, strict=True))


def test_looking_at_a_pause_does_not_lengthen_it_and_starting_over_does_shorten_it():
    pauses = Pauses(0.5, 3.0)
    assert [pauses.seconds, pauses.seconds] == [0.5, 0.5]
    pauses.lengthen()
    assert [pauses.take(), pauses.take(), pauses.take(), pauses.seconds] == [1.0, 2.0, 3.0, 3.0]
    pauses.start_over()
    assert pauses.take() == 0.5
