"""Repeated texts: within a split, and in both training and evaluation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from finetune.data.task import Pool


def first_places(pool: "Pool", other: "Pool") -> NDArray[np.int64]:
    """Return for each example of `other` the position of the first one in `pool` with the same text, (n,), or -1.

    Texts, with their second texts, are the same where they differ in white space alone; labels do not count.
    """
    first: dict[tuple[str, str], int] = {}
    for position, key in enumerate(_keys(pool.texts, pool.pairs)):
        first.setdefault(key, position)
    return np.array([first.get(key, -1) for key in _keys(other.texts, other.pairs)], dtype=np.int64)


def count_repeats(pool: "Pool") -> int:
    """Return how many examples have a text that an earlier one has."""
    return len(pool) - len(set(_keys(pool.texts, pool.pairs)))


def count_shared(pool: "Pool", other: "Pool") -> int:
    """Return how many examples of `other` have a text that is in `pool`."""
    return int((first_places(pool, other) >= 0).sum())


def _keys(texts: Sequence[str], pairs: Sequence[str] | None) -> list[tuple[str, str]]:
    seconds = [""] * len(texts) if pairs is None else pairs
    return [(" ".join(text.split()), " ".join(second.split())) for text, second in zip(texts, seconds, strict=True)]
