"""Models with random weights: drawn from a configuration by the initialization of its architecture."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from finetune.model.draws import generator
from finetune.parallel.weights import gathered


def random_model(make: Callable[[], PreTrainedModel], device: torch.device, seed: int) -> PreTrainedModel:
    """Return a model whose every parameter depends on the seed and on its own name alone.

    So it is the same unsharded and sharded over any number of processes; inside `loaded_sharded` of
    `finetune.parallel.weights` no process holds more than a few modules of it. Values are drawn in single precision and
    rounded, so that a model in half precision is a rounded one in single precision. They are drawn on the device: a GPU
    draws other numbers than a processor.

    Args:
        make: builds the model, as `from_config` of transformers does.
        device: where it is built; one that is built sharded goes where DeepSpeed puts it.
        seed: seed of all parameters.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        # Weights are drawn below, by name: the model's own draws depend on their order, and take as long again.
        with no_init_weights(), device, _Marked():
            model = make()
        model.tie_weights()
        _draw_weights(model, seed)
    return model


@torch.no_grad()
def _draw_weights(model: PreTrainedModel, seed: int) -> None:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for module, owner in _inside_out(model, model):
        # An architecture's rule for a module may also draw the weights of the modules directly inside it.
        parts = [module, *(child for child in module.children() if not isinstance(child, PreTrainedModel))]
        parameters = [parameter for part in parts for parameter in part.parameters(recurse=False)]
        with gathered(parameters), _DrawnByName(names, seed):
            owner._init_weights(module)
            _draw_left_out(module, model)


def _draw_left_out(module: nn.Module, model: PreTrainedModel) -> None:
    """Draw the parameters of a module that the rule of its architecture passes over."""
    deviation = getattr(model.config.get_text_config(), "initializer_range", None) or 0.02
    for parameter in module.parameters(recurse=False):
        if parameter.numel() and bool(parameter.flatten()[0].isnan()):
            nn.init.normal_(parameter, std=deviation) if parameter.ndim > 1 else nn.init.zeros_(parameter)


class _Marked(TorchFunctionMode):
    """Fills tensors made without values with NaN inside this context, to tell them from those with values."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **dict(kwargs or {}))
        return made.fill_(torch.nan) if func is torch.empty and made.is_floating_point() else made


class _DrawnByName(TorchFunctionMode):
    """Fills each parameter with random numbers from a generator of its own, inside this context."""

    def __init__(self, names: Mapping[int, str], seed: int) -> None:
        super().__init__()
        self._names = names
        self._seed = seed

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        # the functions of torch.nn.init come here themselves, with all arguments by name, or through the methods
        filled: Any = args[0] if args else named.get("tensor")
        name = self._names.get(id(filled))
        if name is None or not (func in (Tensor.normal_, Tensor.uniform_) or "generator" in named):
            return func(*args, **named)
        values = torch.empty(filled.shape, dtype=torch.float32, device=filled.device)
        named["generator"] = generator(self._seed, name, filled.device)
        if args:
            func(values, *args[1:], **named)
        else:
            func(**named | {"tensor": values})
        return filled.copy_(values)


def _inside_out(module: nn.Module, owner: PreTrainedModel) -> Iterator[tuple[nn.Module, PreTrainedModel]]:
    """Yield every module after those inside it, with the model that knows its rule."""
    for child in module.children():
        yield from _inside_out(child, child if isinstance(child, PreTrainedModel) else owner)
    yield module, owner
