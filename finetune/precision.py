"""Double precision where architectures ask for single precision by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class KeepDouble(TorchFunctionMode):
    """Inside this context no operation takes a float64 tensor down to float32.

    Norms, rotary embeddings and softmax of many architectures compute in float32 whatever the model's
    precision, to protect float16. With a float64 model that would round every hidden state to single
    precision.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if any(isinstance(value, Tensor) and value.dtype == torch.float64 for value in args):
            if func is Tensor.float:
                return args[0]
            args = tuple(torch.float64 if value is torch.float32 else value for value in args)
            named = {key: torch.float64 if value is torch.float32 else value for key, value in named.items()}
        return func(*args, **named)
