"""The rank from which on LoRA finds the solution of training all weights."""

from math import isqrt

from ntk_dist.errors import NtkError


class SampleSizeError(NtkError):
    """A number of examples or outputs is not positive."""


def rank_threshold(n_examples: int, n_outputs: int) -> int:
    """Return the smallest rank r with r (r + 1) / 2 > K N for N examples and K outputs.

    Of a model that is linear in the weights W themselves, training all of W has a solution of some rank r with
    r (r + 1) / 2 <= K N; and with a rank above that threshold the loss as a function of LoRA's B and A, W = W_0 + B A,
    has no spurious local minima, so that descent finds the low-rank solution (Jang, Lee and Ryu, arXiv 2402.11867; see
    there for what is assumed). The condition suffices; lower ranks may do as well.
    Raises SampleSizeError.
    """
    if n_examples < 1 or n_outputs < 1:
        raise SampleSizeError(f"a rank threshold needs examples and outputs, got {n_examples} and {n_outputs}")
    # The largest r with r (r + 1) <= 2 K N, in whole numbers; the next one is above.
    return (isqrt(8 * n_examples * n_outputs + 1) - 1) // 2 + 1
