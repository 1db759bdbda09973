"""Training sets that a results folder was run with, each of which begins with the one before."""

from collections.abc import Sequence


def drawn_sets(largest: int, before: Sequence[int]) -> tuple[int, ...]:
    """Return the training sets that are drawn for a largest one: those that were drawn before it, and itself."""
    return (*(size for size in before if size < largest), largest)


def with_drawn(before: Sequence[int], largest: int) -> list[int]:
    """Return the training sets that were drawn before, and a largest one if it exceeds them."""
    return list(before) if before and before[-1] >= largest else [*before, largest]
