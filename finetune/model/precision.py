"""Double precision where architectures ask for single precision by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DIFFERS_BY_DEVICE = frozenset(
    function
    for name in ("cos", "sin", "exp", "exp2", "log", "log2", "pow", "tanh", "sigmoid")
    for owner in (torch, Tensor)
    if (function := getattr(owner, name, None)) is not None
) | {Tensor.__pow__, Tensor.__rpow__}
"""Functions that each library rounds differently; sums, products, quotients and square roots are rounded alike."""

_PRODUCTS = frozenset({Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__, torch.mul, torch.multiply})
_LARGEST_SINGLE = torch.finfo(torch.float32).max


class KeepDouble(TorchFunctionMode):
    """Inside this context no operation takes a float64 tensor down to float32, and all devices agree.

    Norms and softmax of many architectures compute in float32 whatever the model's precision, to protect float16. With
    a float64 model that would round every hidden state to single precision. What is made without a precision is in
    double, too.

    What asks for float32 by name from the start stays single: the tables of rotary embeddings, the slopes of ALiBi and
    the buckets of relative positions are computed from positions by functions that every device rounds in its own way
    (6e-8 apart). They are taken from the host wherever the model runs.

    A product with a number beyond the range of float32 is double: CANINE multiplies a mask in float32 by the smallest
    number of float64, which would be 0 times infinity.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: tuple[Tensor, int, Tensor] | None = None
        self._before: list[torch.dtype] = []

    def __enter__(self) -> Self:
        self._before.append(torch.get_default_dtype())
        torch.set_default_dtype(torch.float64)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch.set_default_dtype(self._before.pop())

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func in _DIFFERS_BY_DEVICE:
            return self._on_host(func, args, named)
        if func in _PRODUCTS and any(_is_beyond_single(value) for value in args):
            args = tuple(value.double() if isinstance(value, Tensor) else value for value in args)
        if any(isinstance(value, Tensor) and value.dtype == torch.float64 for value in args):
            if func is Tensor.float:
                return args[0]
            args = tuple(torch.float64 if value is torch.float32 else value for value in args)
            named = {key: torch.float64 if value is torch.float32 else value for key, value in named.items()}
        return func(*args, **named)

    def _on_host(self, func: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """Run a function on the host where the device would round differently; return the result on the device."""
        tensors = [value for value in args if isinstance(value, Tensor)]
        if not tensors or any(value.dtype == torch.float64 or value.device.type == "cpu" for value in tensors):
            return func(*args, **named)
        here = [self._copy(value) if isinstance(value, Tensor) else value for value in args]
        return func(*here, **named).to(tensors[0].device, non_blocking=True)

    def _copy(self, value: Tensor) -> Tensor:
        # A table's cosines and sines are taken one after the other, of the same angles: they travel once.
        if self._seen is None or self._seen[0] is not value or self._seen[1] != value._version:
            self._seen = (value, value._version, value.cpu())
        return self._seen[2]


def _is_beyond_single(value: object) -> bool:
    return isinstance(value, float) and _LARGEST_SINGLE < abs(value) < float("inf")
