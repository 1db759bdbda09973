"""Memory of batches on the device that computes them, and the number of tokens that fit."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from finetune.parallel.memory import full_heap, give_back
from ntk_dist.device.share import bytes_left
from orchestrator.errors import SweepError
from orchestrator.sweep.resources import peak_memory, reset_peak_memory, resident_memory

MOST_TOKENS = 65_536
"""Tokens beyond which a larger batch is no faster on any device that is known here."""

HOST_PASSES = 2
"""Passes of a batch on the host, of which the larger peak counts: the same number in every process of a group."""

SHARE_OF_FREE = 0.8
"""Share of a GPU's free memory that a batch may take; the rest allows for fragmentation."""


def batch_limit(device: torch.device, budget: int) -> int:
    """Return the bytes that a batch may take beside the model.

    Args:
        device: where it is computed, with the model on it.
        budget: bytes that it may take of the host's memory, which other workers share: how much of that is free now
            says little.
    """
    if device.type == "cpu":
        return budget
    return int(SHARE_OF_FREE * bytes_left(device))


def peak_of(run: Callable[[], object], device: torch.device) -> int:
    """Return the peak of bytes that `run` took on the device, beyond those that were in use before.

    Raises:
        SweepError: the system does not report the peak.
    """
    if device.type != "cpu":
        module = torch.get_device_module(device)
        module.reset_peak_memory_stats(device)
        before = module.memory_allocated(device)
        run()
        return int(module.max_memory_allocated(device) - before)
    # A peak is too low where other threads gave memory back and took it again meanwhile.
    return max(_peak_on_the_host(run) for _ in range(HOST_PASSES))


def _peak_on_the_host(run: Callable[[], object]) -> int:
    """Return the bytes by which the resident memory rose while `run` ran, with those that others gave back meanwhile.

    Others are threads of libraries, the garbage collector, the system with pages of mapped files: what they gave back
    for good hid as much of what `run` took.
    """
    # Memory that was freed but not given back would be used again, and not be seen.
    gc.collect()
    with full_heap():
        if not reset_peak_memory():
            raise SweepError(
                "compute.batch_tokens: auto measures the memory of batches, which this system does not tell; give a "
                "number"
            )
        before = peak_memory()
        run()
        peak = peak_memory()
        give_back()
        return peak - before + max(0, before - resident_memory())


def forget_batch(device: torch.device) -> None:
    """Release the memory that is left in use after a batch ran out of memory."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
    else:
        give_back()


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
        """Return the bytes of a batch of that many tokens."""
        return self.fixed + self.per_token * tokens

    @classmethod
    def through(cls, measured: Sequence[tuple[int, int]]) -> "MemoryLine":
        """Return the line through the first and the last of some batches, as (tokens, bytes), smaller ones first.

        A single batch does not show the fixed part: all its bytes then count as those of its tokens, which is never too
        few.
        """
        (few, of_few), (many, of_many) = measured[0], measured[-1]
        if few == many:
            return cls(0.0, of_few / few)
        # Measurements vary, but more tokens never need less memory.
        per_token = max(0.0, (of_many - of_few) / (many - few))
        return cls(max(0.0, of_few - per_token * few), per_token)


def fitting_tokens(bytes_of: Callable[[int], float], limit: float, *, least: int, most: int = MOST_TOKENS) -> int:
    """Return the largest power of two of tokens whose batch fits, or `least` where none above it does.

    Args:
        bytes_of: returns the bytes of a batch with a given number of tokens.
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
