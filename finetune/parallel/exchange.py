"""Data that the processes of a group exchange while they train: outputs, gradients, states."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import all_gather, all_reduce, all_to_all_single

from finetune.errors import ProcessGroupError
from finetune.parallel.process_group import ProcessGroup


def from_all(own: Tensor, places: Sequence[int], n_examples: int) -> Tensor:
    """Return the outputs (S, n, R) of n examples, of which this process has computed some.

    Gradients go back to this process's outputs alone. Outputs that do not count get gradients of zero, because all
    processes have to take part in a backward pass.

    Args:
        own: (S, b, R), outputs with their graph.
        places: which of the n examples the first of them are; those beyond do not count.
        n_examples: n; every example is at a place of one process.
    """
    whole: Tensor = _FromAll.apply(own, list(places), n_examples)  # type: ignore[no-untyped-call]
    return whole


def for_all(tensors: Sequence[Tensor], process_group: ProcessGroup) -> list[Tensor]:
    """Return tensors that are the same on all processes, with the sum over these as their gradient.

    The sum is taken in the order of the processes, so that it has the same bits on each of them and in every run.
    """
    passed: tuple[Tensor, ...] = _ForAll.apply(process_group, *tensors)  # type: ignore[no-untyped-call]
    return list(passed)


def check_agreement(numbers: Sequence[int], process_group: ProcessGroup) -> None:
    """Check that numbers, below 2^63 in size, are the same on all processes.

    Raises:
        ProcessGroupError: they are not.
    """
    own = torch.tensor(numbers)
    found = [torch.empty_like(own) for _ in range(process_group.size)]
    all_gather(found, own)
    if not all(torch.equal(own, other) for other in found):
        raise ProcessGroupError(
            "the processes that hold one model no longer have the same weights: with the same numbers they computed "
            "others, as processors of different types do; put each process group on machines of one type"
        )


@torch.no_grad()
def join(rows: Tensor, process_group: ProcessGroup) -> None:
    """Give every process the rows of all, in place; before the call each has its own rows, and zeros for the others."""
    if process_group.size > 1:
        all_reduce(rows)


class _FromAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, places: list[int], n_examples: int) -> Tensor:
        ctx.places, ctx.shape = places, own.shape
        whole = own.new_zeros(own.shape[0], n_examples, own.shape[2])
        whole[:, places] = own[:, : len(places)]
        # At most one term of each sum is not zero, so the order of the sum does not matter.
        all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        own = gradient.new_zeros(ctx.shape)
        own[:, : len(ctx.places)] = gradient[:, ctx.places]
        return own, None, None


class _ForAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, process_group: ProcessGroup, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.process_group = process_group
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        reached = [gradient for gradient in gradients if gradient is not None]
        if not reached:
            return None, *gradients
        total = _sum(torch.cat([gradient.flatten() for gradient in reached]), ctx.process_group)
        parts = iter(torch.split(total, [gradient.numel() for gradient in reached]))
        return None, *(None if each is None else next(parts).view_as(each).to(each.dtype) for each in gradients)


def _sum(values: Tensor, process_group: ProcessGroup) -> Tensor:
    """Return the sum (n,) over processes: each adds up a part in their order, and gives it to all."""
    length = -(-len(values) // process_group.size)
    padded = torch.nn.functional.pad(values, (0, length * process_group.size - len(values)))
    received = torch.empty_like(padded)
    all_to_all_single(received, padded)
    first, *others = received.view(process_group.size, length)
    part = first.clone()
    for other in others:
        part += other
    parts = [torch.empty_like(part) for _ in range(process_group.size)]
    all_gather(parts, part)
    return torch.cat(parts)[: len(values)]
