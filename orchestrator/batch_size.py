"""How many tokens a batch may have, from the memory that small batches were seen to take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

MOST_TOKENS = 65_536
"""Tokens beyond which a larger batch is no faster on any device that is known here."""

SEVERAL = 4
"""Examples of the larger of the two batches that are measured."""

CROWD = 8
"""Most examples of the batches in which it is tried whether examples stay apart."""


@dataclass(frozen=True)
class MemoryLine:
    """Bytes that a batch takes beside the model, as a line: called with tokens, padding included.

    Attributes:
        fixed: bytes of any batch.
        per_token: bytes of each token.
    """

    fixed: float
    per_token: float

    def __call__(self, tokens: int) -> float:
        """Return the bytes of a batch of so many tokens."""
        return self.fixed + self.per_token * tokens

    @classmethod
    def through(cls, measured: Sequence[tuple[int, int]]) -> "MemoryLine":
        """Return the line through the first and the last of some batches, as (tokens, bytes), smaller ones first.

        One alone says nothing of what is fixed: all of it then counts as that of its tokens, which is never too little.
        """
        (few, of_few), (many, of_many) = measured[0], measured[-1]
        if few == many:
            return cls(0.0, of_few / few)
        # What is measured may waver; no token gives memory back.
        per_token = max(0.0, (of_many - of_few) / (many - few))
        return cls(max(0.0, of_few - per_token * few), per_token)


def fitting_tokens(bytes_of: Callable[[int], float], limit: float, *, least: int, most: int = MOST_TOKENS) -> int:
    """Return the largest power of two of tokens whose batch fits, or `least` where none above it does.

    Args:
        bytes_of: bytes that a batch of so many tokens takes.
        limit: bytes that it may take.
        least: tokens of the longest text, which goes through the model whatever it takes.
        most: no batch has more tokens, unless a text alone does.
    """
    tokens = 1 << (most.bit_length() - 1)
    while tokens > least:
        if bytes_of(tokens) <= limit:
            return tokens
        tokens //= 2
    return least
