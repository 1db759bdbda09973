"""Jacobian rows that are being summed over positions and calls, in a precision of their own."""

import torch
from torch import Tensor, nn

from ntk_dist.errors import NonFiniteError, NtkError
from ntk_dist.example_axes import by_example
from ntk_dist.recording import Call, Recorder
from ntk_dist.tracked import Groups, TrackedLinear


class RowSums:
    """Rows (B, R, p_g) by group, zero at first.

    Sums are made in at least single precision, and in that of the scores and that of the rows if these have more; they
    are rounded to that of the rows at the end.

    Args:
        groups: the tracked modules by group.
        scores: (B, R).
        row_dtype: precision of the finished rows; None takes that of the scores, and at least single precision.
    """

    def __init__(self, groups: Groups, scores: Tensor, row_dtype: torch.dtype | None) -> None:
        least = torch.promote_types(scores.dtype, torch.float32)
        self.row_dtype = least if row_dtype is None else row_dtype
        dtype = torch.promote_types(least, self.row_dtype)
        self._rows = {
            name: torch.zeros(
                *scores.shape, sum(linear.n_parameters for linear in group), dtype=dtype, device=scores.device
            )
            for name, group in groups.items()
        }
        self._begun: set[tuple[Recorder, int]] = set()

    @torch.no_grad()
    def add(self, recorder: Recorder, call: Call, output: int, gradient: Tensor | None) -> None:
        """Add what one call of a module contributes to the rows of an output.

        Args:
            recorder: of the module.
            call: the call.
            output: which of the R.
            gradient: of that output with respect to what the call returned; None if it does not depend on it.

        Raises:
            NtkError: the model has overwritten the input.
            InputLayoutError: the input has no example axis.
        """
        linear = recorder.linear
        if call.inputs._version != call.version:
            raise NtkError(
                f"the model changes the input of {linear.name} in place, so that its gradient is lost; leave "
                "it out of the targets"
            )
        if gradient is None:
            return
        first = (recorder, output) not in self._begun
        self._begun.add((recorder, output))
        columns = self._rows[recorder.group][:, output, recorder.start : recorder.start + linear.n_parameters]
        _add_call(columns, linear, call.inputs, gradient, first=first)

    def finished(self, scores: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scores and the rows by group, in the precision of the rows; nothing can be added any more.

        The host waits once, for what tells of all numbers whether they are finite.

        Args:
            scores: (B, R).

        Raises:
            NonFiniteError: a score or a gradient is NaN or infinite, or too large for the precision of the rows.
        """
        check = FiniteCheck()
        first = check.rounded(scores, self.row_dtype, "a score")
        # given up group by group, so that at most one is there in both precisions
        rows = {
            name: check.rounded(self._rows.pop(name), self.row_dtype, f"the gradient of group {name}")
            for name in list(self._rows)
        }
        check.raise_first()
        return first, rows


def _add_call(columns: Tensor, linear: TrackedLinear, inputs: Tensor, gradient: Tensor, *, first: bool) -> None:
    """Add the gradients of one call, (B, its parameters), to columns that are still zero at the first."""
    a, b = (by_example(values, len(columns), linear.example_axis, linear.name) for values in (inputs, gradient))
    n_weights = 0
    if linear.weight:
        left, right = (b, a) if isinstance(linear.module, nn.Linear) else (a, b)
        n_weights = linear.module.weight.numel()
        weights = columns[:, :n_weights].view(len(columns), *linear.module.weight.shape)
        _add_products(weights, left.transpose(1, 2), right, first=first)
    if linear.bias:
        columns[:, n_weights:] += b.sum(dim=1, dtype=columns.dtype)


def _add_products(weights: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """Add left @ right to weights (B, m, n), summed in the precision of the weights."""
    if _keeps_sums(weights, left, right):
        products = torch.bmm(left, right, out_dtype=torch.float32)
        weights.copy_(products) if first else weights.add_(products)
        return
    left, right = left.to(weights.dtype), right.to(weights.dtype)
    # written in place: a product that is copied afterwards costs as much again for short examples
    if first:
        torch.bmm(left, right, out=weights)
    else:
        weights.baddbmm_(left, right)


def _keeps_sums(weights: Tensor, left: Tensor, right: Tensor) -> bool:
    """Whether factors in half precision can stay so: GPUs sum their products in single precision."""
    halves = left.dtype == right.dtype and left.dtype in (torch.float16, torch.bfloat16)
    # before torch 2.8 the sums could not be had before they were rounded
    return weights.is_cuda and weights.dtype == torch.float32 and halves and hasattr(torch.ops.aten.bmm, "dtype")


class FiniteCheck:
    """Whether the numbers of several tensors are finite, asked of the device once for all of them."""

    def __init__(self) -> None:
        self._found: list[tuple[Tensor, str, torch.dtype]] = []
        self._sums: list[Tensor] = []

    def rounded(self, values: Tensor, dtype: torch.dtype, what: str) -> Tensor:
        """Return values (B, ...) in a precision, to be looked at by `raise_first`.

        Args:
            values: the values.
            dtype: the precision.
            what: what they are, for the message.
        """
        found = values.to(dtype)
        self._found.append((found, what, values.dtype))
        # One sum tells, and costs less than a mask; only a suspicious one is looked into.
        total = _total(found)
        self._sums += [total if found is values else _total(values), total]
        return found

    def raise_first(self) -> None:
        """Wait for the device, and check all values in the order in which they came.

        Raises:
            NonFiniteError: one is NaN or infinite, or too large for its precision; names the first example.
        """
        finite = torch.isfinite(torch.stack(self._sums)).tolist()
        for (values, what, before), was, is_now in zip(self._found, finite[::2], finite[1::2], strict=True):
            if not (was and is_now) and (bad := _first_bad(values)) is not None:
                raise NonFiniteError(
                    _too_large(values, what, bad) if was and values.dtype != before else _bad(what, bad)
                )


def _total(values: Tensor) -> Tensor:
    # Half precision ends so early that sums leave it.
    return values.sum(dtype=torch.promote_types(values.dtype, torch.float32)).double()


def _bad(what: str, bad: int) -> str:
    return (
        f"{what} is NaN or infinite for example {bad} of the batch; look at its text, or use dtype float64 if the "
        "model overflows (bfloat16 instead of float16)"
    )


def _too_large(values: Tensor, what: str, bad: int) -> str:
    return (
        f"{what} is too large for {str(values.dtype).removeprefix('torch.')}, which ends at "
        f"{torch.finfo(values.dtype).max:g}, for example {bad} of the batch; keep rows in float32"
    )


def _first_bad(values: Tensor) -> int | None:
    bad = ~torch.isfinite(values).flatten(1).all(dim=1)
    return int(bad.nonzero()[0]) if bool(bad.any()) else None
