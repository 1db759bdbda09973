"""Answers from the host's copy of a batch, so that the host does not wait for the device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ntk_dist.jacobian.batches import Batch

_ASKED = frozenset(
    function
    for name in (
        "all",
        "any",
        "sum",
        "eq",
        "ne",
        "logical_not",
        "bitwise_not",
        "view",
        "reshape",
        "unsqueeze",
        "squeeze",
    )
    for owner in (torch, Tensor)
    if (function := getattr(owner, name, None)) is not None
) | {Tensor.__eq__, Tensor.__ne__, Tensor.__invert__, Tensor.__getitem__}
"""Functions that models call on masks and tokens, and that cost the host next to nothing."""

_CONVERTED = frozenset({Tensor.to, Tensor.bool, Tensor.long, Tensor.int, Tensor.float})


@contextmanager
def answered(batch: Batch, there: Batch) -> Iterator[None]:
    """Let the host answer a model's questions about a batch inside this context, such as whether it has padding.

    Args:
        batch: on the host; anywhere else nothing is known.
        there: the same, on the device of the model.
    """
    if there is batch or batch.input_ids.device.type != "cpu":
        yield
        return
    pairs = zip(there.tensors(), batch.tensors(), strict=True)
    with _Known([(away, here) for away, here in pairs if away is not here]):
        yield


class _Known(TorchFunctionMode):
    """Follows some tensors through cheap functions, and computes their `bool` on the host."""

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        # by identity, with the tensors themselves, whose identity would go to others if they were given up
        self._known = {id(away): (away, here) for away, here in pairs}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        known = self._known.get(id(args[0])) if args else None
        if known is None:
            return func(*args, **named)
        if func is Tensor.__bool__:
            return func(known[1])
        found = func(*args, **named)
        if func in _CONVERTED:
            self._known[id(found)] = (found, known[1].to(found.dtype))
        elif func in _ASKED and all(_is_plain(value) for value in (*args[1:], *named.values())):
            self._known[id(found)] = (found, func(known[1], *args[1:], **named))
        return found


def _is_plain(value: object) -> bool:
    """Tell whether an argument means the same on the host."""
    if isinstance(value, tuple):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, bool | int | float | slice)
