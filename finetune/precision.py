"""Double precision where architectures ask for single precision by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class KeepDouble(TorchFunctionMode):
    """Inside this context no operation takes a float64 tensor down to float32.

    Norms, rotary embeddings and softmax of many architectures compute in float32 whatever the model's
    precision, to protect float16. With a float64 model that would round every hidden state to single
    precision. What is made without a precision is in double, too, and whole numbers and masks become so: CANINE makes
    its mask single and multiplies it by the smallest number of double precision, which overflows to 0 times infinity.
    """

    def __init__(self) -> None:
        super().__init__()
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
        if func is Tensor.float and not args[0].is_floating_point() and not args[0].is_complex():
            return args[0].double()
        if any(isinstance(value, Tensor) and value.dtype == torch.float64 for value in args):
            if func is Tensor.float:
                return args[0]
            args = tuple(torch.float64 if value is torch.float32 else value for value in args)
            named = {key: torch.float64 if value is torch.float32 else value for key, value in named.items()}
        return func(*args, **named)
