"""Changes that a forward pass makes to a model itself: undone, or named.

Some architectures change themselves: BigBird turns its sparse attention off at the first short text and never on again,
others keep tables that grow with the longest text.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finetune.parallel.deepspeed_private import MODULE_ATTRIBUTES

_OF_TORCH = frozenset(vars(nn.Module()))
"""Attributes of every module: parameters, hooks and the like, which are not the architecture's own."""


class ModelState:
    """The present state of a model's modules: attributes, children and buffers, without the parameters.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = {name: (module, _ModuleState.of(module)) for name, module in model.named_modules()}

    def put_back(self) -> None:
        """Restore this state of the model."""
        for module, state in self._modules.values():
            state.put_back(module)

    def first_change(self) -> str | None:
        """Return the first plain attribute that has another value now, with both values; None if there is none."""
        for name, (module, state) in self._modules.items():
            for attribute, before in state.attributes.items():
                after = vars(module).get(attribute)
                if isinstance(before, str | int | float) and type(after) is type(before) and after != before:
                    path = f"{name}.{attribute}" if name else attribute
                    return f"{path} of {type(module).__name__} from {before!r} to {after!r}"
        return None


@contextmanager
def undone(model: nn.Module) -> Iterator[None]:
    """Undo, at the end of this context, the changes that passes through the model have made to it."""
    state = ModelState(model)
    try:
        yield
    finally:
        state.put_back()


@dataclass(frozen=True, eq=False)
class _ModuleState:
    """The state of one module.

    Attributes:
        attributes: its own, by name; containers with a copy of what they hold.
        contents: those copies, by name.
        children: its modules.
        buffers: its buffers, each with its version, and a copy of what it holds.
    """

    attributes: Mapping[str, Any]
    contents: Mapping[str, Any]
    children: Mapping[str, nn.Module | None]
    buffers: Mapping[str, tuple[Tensor | None, int, Tensor | None]]

    @classmethod
    def of(cls, module: nn.Module) -> "_ModuleState":
        attributes = _own(module)
        return cls(
            attributes,
            {name: value.copy() for name, value in attributes.items() if isinstance(value, dict | list | set)},
            dict(module._modules),
            {name: _kept(value) for name, value in module._buffers.items()},
        )

    def put_back(self, module: nn.Module) -> None:
        own = vars(module)
        for name in _own(module).keys() - self.attributes.keys():
            del own[name]
        own.update(self.attributes)
        for name, copy in self.contents.items():
            _refill(own[name], copy)
        _refill(module._modules, self.children)
        _refill(module._buffers, {name: kept[0] for name, kept in self.buffers.items()})
        for buffer, version, copy in self.buffers.values():
            if buffer is not None and copy is not None and buffer._version != version:
                buffer.copy_(copy)


def _own(module: nn.Module) -> dict[str, Any]:
    # other code replaces a module's `forward` to compute in its place
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _OF_TORCH and name != "forward" and not name.startswith(MODULE_ATTRIBUTES)
    }


@torch.no_grad()
def _kept(buffer: Tensor | None) -> tuple[Tensor | None, int, Tensor | None]:
    if buffer is None:
        return None, 0, None
    return buffer, buffer._version, buffer.clone()


def _refill(container: Any, contents: Any) -> None:
    """Restore the contents of a container; leave it alone if they are the same."""
    now, before = _parts(container), _parts(contents)
    if len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True)):
        return
    container.clear()
    container.extend(contents) if isinstance(container, list) else container.update(contents)


def _parts(container: Any) -> list[Any]:
    return [part for pair in container.items() for part in pair] if isinstance(container, dict) else list(container)
