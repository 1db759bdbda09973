"""Batches of token sequences: grouping of examples by length, and padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntk_dist.device.transfers import sent
from ntk_dist.errors import NtkError


@dataclass(frozen=True, eq=False)
class Batch:
    """B token sequences, padded on the right to the length T of the longest.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T) int64, 1 at real tokens.
        token_type_ids: (B, T) int64, for models that take them.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None = None

    @property
    def last_positions(self) -> Tensor:
        """(B,) int64: position of the last real token."""
        return self.attention_mask.sum(dim=1) - 1

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def tensors(self) -> list[Tensor]:
        """Return its tensors."""
        return [values for values in (self.input_ids, self.attention_mask, self.token_type_ids) if values is not None]

    def apart(self) -> list["Batch"]:
        """Return each example as a batch of its own, without padding."""
        return [
            Batch(
                self.input_ids[i : i + 1, :length],
                self.attention_mask[i : i + 1, :length],
                None if self.token_type_ids is None else self.token_type_ids[i : i + 1, :length],
            )
            for i, length in enumerate(self.attention_mask.sum(dim=1).tolist())
        ]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; itself if it is there."""
        if self.input_ids.device == device:
            return self
        types = self.token_type_ids
        return Batch(
            sent(self.input_ids, device),
            sent(self.attention_mask, device),
            None if types is None else sent(types, device),
        )


def length_buckets(
    lengths: Sequence[int] | NDArray[np.integer],
    *,
    batch_tokens: int,
    batch_size: int | None = None,
    pass_tokens: int | None = None,
) -> list[NDArray[np.int64]]:
    """Split examples into batches of similar length.

    Examples are sorted by length (ties keep their order) and cut into batches that have at most `batch_tokens` tokens
    with their padding; a longer example makes a batch of its own. Only the lengths decide, so that batches are the same
    wherever they are made.

    Args:
        lengths: (n,) tokens of each example.
        batch_tokens: most tokens of a batch, padding included.
        batch_size: most examples of a batch, which bounds the rows that it gives; None sets no bound.
        pass_tokens: tokens that cost as much as what a batch costs beside its tokens: then the batches are those of the
            smallest cost, padding included. None makes each as full as it can be, the shortest examples first.

    Returns:
        Positions of the examples of each batch, in the order of length; together each of 0..n-1 once.

    Raises:
        NtkError: a length, `batch_tokens` or `batch_size` is below 1.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    most = len(sizes) if batch_size is None else batch_size
    if batch_tokens < 1 or (sizes < 1).any() or (len(sizes) and most < 1):
        raise NtkError("every example needs a token; batch_tokens and batch_size must be at least 1")
    order = np.argsort(sizes, kind="stable")
    ascending = sizes[order]
    # the most examples of a batch that ends with each
    widest = np.minimum(np.maximum(batch_tokens // np.maximum(ascending, 1), 1), most)
    ends = _full(widest) if pass_tokens is None else _cheapest(ascending, widest, pass_tokens)
    return np.split(order, ends[:-1]) if ends else []


def _full(widest: NDArray[np.int64]) -> list[int]:
    """Return where batches end that take as many examples as they can, from the first on."""
    ends, start = [], 0
    for end in range(1, len(widest) + 1):
        if end == len(widest) or end + 1 - start > widest[end]:
            ends.append(end)
            start = end
    return ends


def _cheapest(ascending: NDArray[np.int64], widest: NDArray[np.int64], pass_tokens: int) -> list[int]:
    """Return where the batches end whose tokens, padding included, and passes cost least together."""
    n = len(ascending)
    costs, starts = np.zeros(n + 1, dtype=np.int64), np.zeros(n + 1, dtype=np.int64)
    for end in range(1, n + 1):
        first = max(0, end - int(widest[end - 1]))
        with_last = costs[first:end] + ascending[end - 1] * np.arange(end - first, 0, -1)
        best = int(with_last.argmin())
        costs[end], starts[end] = with_last[best] + pass_tokens, first + best
    ends, end = [], n
    while end:
        ends.append(end)
        end = int(starts[end])
    return ends[::-1]


def pad(
    sequences: Sequence[NDArray[np.integer]],
    *,
    pad_id: int,
    token_types: Sequence[NDArray[np.integer]] | None = None,
) -> Batch:
    """Stack token sequences, padded on the right with `pad_id` (and token type 0).

    Args:
        sequences: B arrays of token ids, none empty.
        pad_id: the id that fills the rest; what it is never matters, since it is masked.
        token_types: B arrays of token types, as long as the sequences.

    Raises:
        NtkError: no sequence, or one without tokens.
    """
    if not sequences or any(len(sequence) == 0 for sequence in sequences):
        raise NtkError("a batch needs sequences of at least one token")
    longest = max(len(sequence) for sequence in sequences)
    mask = np.arange(longest) < np.array([[len(sequence)] for sequence in sequences])

    def stack(parts: Sequence[NDArray[np.integer]], fill: int) -> Tensor:
        stacked = np.full(mask.shape, fill, dtype=np.int64)
        stacked[mask] = np.concatenate(parts)
        return torch.from_numpy(stacked)

    return Batch(
        input_ids=stack(sequences, pad_id),
        attention_mask=torch.from_numpy(mask.astype(np.int64)),
        token_type_ids=None if token_types is None else stack(token_types, 0),
    )
