"""The axis of a linear module's input on which the examples of a batch stand: found by changing one of them.

Sizes are not enough: a batch may have as many examples as tokens. For two batches that differ only in their first
example, a module's inputs differ only in that example's positions; an axis counts if batches of two sizes agree on it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ntk_dist.errors import InputLayoutError


@dataclass(frozen=True)
class Trial:
    """Two batches of the same lengths that differ in the first example, in all of its tokens.

    Attributes:
        n_examples: examples B of either.
        run: runs the model on the first batch.
        run_changed: runs the model on the second.
    """

    n_examples: int
    run: Callable[[], object]
    run_changed: Callable[[], object]


@dataclass(eq=False)
class _Inputs:
    """Inputs of one module, call by call; calls without a tensor are left out."""

    calls: list[Tensor] = field(default_factory=list)

    def __call__(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            self.calls.append(args[0].detach().clone())


@torch.no_grad()
def example_axes(modules: Iterable[nn.Module], trials: Sequence[Trial]) -> dict[nn.Module, int | None]:
    """Return the axis of every module; None where there is none that holds in all calls, or there was no call.

    The axis holds the examples one after the other, each with equally many positions: one, or as many as the model has
    merged into it. Axes of inputs that depend on positions alone are excluded by the two sizes.

    Args:
        modules: linear modules of a model in eval mode, which treats the examples of a batch apart.
        trials: of different numbers of examples.
    """
    possible: dict[nn.Module, set[int]] = {}
    sizes: dict[tuple[nn.Module, int], set[int]] = {}
    for trial in trials:
        before, after = (_seen(modules, run) for run in (trial.run, trial.run_changed))
        for module, inputs in before.items():
            calls, others = inputs.calls, after[module].calls
            found = [_axes(a, b, trial.n_examples) for a, b in zip(calls, others, strict=False)]
            if len(calls) != len(others):
                found = [set()]
            if found:
                possible[module] = set.intersection(*found, *([possible[module]] if module in possible else []))
            for call in calls:
                for axis, size in enumerate(call.shape[:-1]):
                    sizes.setdefault((module, axis), set()).add(size)
    grown = {module: {axis for axis in axes if len(sizes[module, axis]) > 1} for module, axes in possible.items()}
    return {module: min(axes) if len(axes := grown.get(module, set())) == 1 else None for module in modules}


def by_example(values: Tensor, n_examples: int, axis: int | None, name: str) -> Tensor:
    """Return (B, positions, features) of what a module was called with, or of the gradient of what it returned.

    Args:
        values: (..., features).
        n_examples: examples B, or equal parts of a batch.
        axis: that of the examples, see `example_axes`.
        name: of the module, for the message.

    Raises:
        InputLayoutError: the module has no such axis.
    """
    if n_examples == 1:
        return values.reshape(1, -1, values.shape[-1])
    if axis is None or axis >= values.ndim - 1 or values.shape[axis] % n_examples:
        raise InputLayoutError(
            f"{name} was called with a tensor of shape {tuple(values.shape)} in a batch of {n_examples} examples, none "
            "of whose axes is that of the examples, so that its rows cannot be told apart by example; leave it out of "
            "the targets, or let every example go through the model by itself (compute.batching: alone)"
        )
    size = values.shape[axis] // n_examples
    parts = values.reshape(*values.shape[:axis], n_examples, size, *values.shape[axis + 1 :])
    return parts.movedim(axis, 0).reshape(n_examples, -1, values.shape[-1])


def from_examples(values: Tensor, leading: Sequence[int], axis: int | None) -> Tensor:
    """Return the result of `by_example` with the same axis in its original shape, (*leading, features)."""
    if axis is None or axis == 0:
        return values.reshape(*leading, values.shape[-1])
    n_examples, before, after = len(values), leading[:axis], leading[axis + 1 :]
    parts = values.reshape(n_examples, *before, leading[axis] // n_examples, *after, values.shape[-1])
    return parts.movedim(0, axis).reshape(*leading, values.shape[-1])


def _seen(modules: Iterable[nn.Module], run: Callable[[], object]) -> dict[nn.Module, _Inputs]:
    seen = {module: _Inputs() for module in modules}
    with _watched(seen):
        run()
    return seen


@contextmanager
def _watched(seen: dict[nn.Module, _Inputs]) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(inputs) for module, inputs in seen.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _axes(before: Tensor, after: Tensor, n_examples: int) -> set[int]:
    """Return the axes of an input along which two batches differ only in the first example."""
    if before.shape != after.shape:
        return set()
    differs = _positions_that_differ(before, after)
    return {axis for axis in range(differs.ndim) if _is_first_part(differs, n_examples, axis)}


def _positions_that_differ(before: Tensor, after: Tensor) -> Tensor:
    change: Tensor = torch.linalg.vector_norm(before - after, dim=-1)
    size = torch.maximum(torch.linalg.vector_norm(before, dim=-1), torch.linalg.vector_norm(after, dim=-1))
    # tokens that are routed to other places with other examples are summed in another order
    differs: Tensor = change > torch.finfo(before.dtype).eps ** 0.5 * size
    return differs


def _is_first_part(differs: Tensor, n_examples: int, axis: int) -> bool:
    first, rest = divmod(differs.shape[axis], n_examples)
    return rest == 0 and not bool(differs.narrow(axis, first, differs.shape[axis] - first).any())
