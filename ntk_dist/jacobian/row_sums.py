"""Jacobian rows that are being summed over positions and calls, in a precision of their own."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ntk_dist.device.transfers import Arriving
from ntk_dist.errors import NonFiniteError, NtkError
from ntk_dist.jacobian.call_sums import add_call
from ntk_dist.jacobian.recording import Call, Recorder
from ntk_dist.jacobian.tracked import Groups


class RowSums:
    """Rows (B, R, p_g) by group, to which nothing was added at first.

    Sums are made in at least single precision, and in that of the scores and that of the rows if these have more; they
    are rounded to that of the rows at the end.

    Args:
        groups: the tracked modules by group.
        recorders: of all of them.
        scores: (B, R).
        row_dtype: precision of the finished rows; None takes that of the scores, and at least single precision.
    """

    def __init__(
        self, groups: Groups, recorders: Iterable[Recorder], scores: Tensor, row_dtype: torch.dtype | None
    ) -> None:
        least = torch.promote_types(scores.dtype, torch.float32)
        self.row_dtype = least if row_dtype is None else row_dtype
        dtype = torch.promote_types(least, self.row_dtype)
        self._rows = {
            name: torch.empty(
                *scores.shape, sum(linear.n_parameters for linear in group), dtype=dtype, device=scores.device
            )
            for name, group in groups.items()
        }
        self._recorders = recorders
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
        add_call(self._columns(recorder, output), linear, call.inputs, gradient, first=first, scale=recorder.scale)

    def has_begun(self, recorder: Recorder) -> bool:
        """Tell whether anything was added to the rows of a module."""
        return any(each is recorder for each, _ in self._begun)

    def finished(self, scores: Tensor) -> "BatchRows":
        """Return the scores (B, R) and the rows in the precision of the rows; nothing can be added any more."""
        # not filled with zeros before: most of them are written at once
        for recorder in self._recorders:
            for output in range(scores.shape[1]):
                if (recorder, output) not in self._begun:
                    self._columns(recorder, output).zero_()
        found = BatchRows()
        found.add("", scores, self.row_dtype, "a score")
        # released group by group, so that at most one group is in memory in both precisions
        for name in list(self._rows):
            found.add(name, self._rows.pop(name), self.row_dtype, f"the gradient of group {name}")
        return found

    def _columns(self, recorder: Recorder, output: int) -> Tensor:
        """Return the columns (B, parameters of the module) of one output."""
        return self._rows[recorder.group][:, output, recorder.start : recorder.start + recorder.linear.n_parameters]


class BatchRows:
    """Scores and rows of a batch on the device that computed them, which the host has not waited for.

    One wait for the device gets the values, and tells whether all numbers are finite.
    """

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}
        self._described: list[tuple[str, torch.dtype]] = []
        self._sums: list[Tensor] = []

    def add(self, name: str, values: Tensor, dtype: torch.dtype, what: str) -> None:
        """Add values (B, ...), rounded to a precision.

        Args:
            name: of the group; empty for the scores.
            values: the values.
            dtype: the precision.
            what: what they are, for messages.
        """
        rounded = values.to(dtype)
        self._values[name] = rounded
        self._described.append((what, values.dtype))
        # One sum costs less than a mask; elements are checked only if the sum is not finite.
        total = _total(rounded)
        self._sums += [total if rounded is values else _total(values), total]

    def here(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scores (B, R) and the rows (B, R, p_g) by group on their device.

        Raises:
            NonFiniteError: a score or a gradient is NaN or infinite, or too large for the precision of the rows; names
                group and position in the batch.
        """
        sums = torch.stack(self._sums)
        if not torch.isfinite(sums).all():
            self._check(sums)
        values = dict(self._values)
        return values.pop(""), values

    def leave(self) -> Arriving:
        """Start sending scores and rows to the host."""
        return Arriving({**self._values, _SUMS: torch.stack(self._sums)})

    def arrived(self, arriving: Arriving) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scores and rows that `leave` sent, as `here` does, on the host."""
        values = arriving.wait()
        self._check(values.pop(_SUMS))
        return values.pop(""), values

    def _check(self, sums: Tensor) -> None:
        finite = torch.isfinite(sums).tolist()
        pairs = zip(finite[::2], finite[1::2], strict=True)
        for (was, is_now), values, (what, before) in zip(pairs, self._values.values(), self._described, strict=True):
            if not (was and is_now) and (bad := _first_bad(values)) is not None:
                raise NonFiniteError(
                    _too_large(values, what, bad) if was and values.dtype != before else _bad(before, what, bad)
                )


_SUMS = "sums of all values"
"""Key under which the sums are sent with the rows; no group has this name."""


class RowsToCome:
    """Scores and rows of a batch on their way to the host.

    Args:
        parts: of the batch, in order; each is sent before the next one is asked for.
    """

    def __init__(self, parts: Iterable[BatchRows]) -> None:
        self._parts = [(part, part.leave()) for part in parts]

    @property
    def there(self) -> bool:
        """True if nothing has to be waited for."""
        return all(arriving.there for _, arriving in self._parts)

    def wait(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scores (B, R) and the rows (B, R, p_g) by group on the host. Raises as `BatchRows.here`."""
        return joined([part.arrived(arriving) for part, arriving in self._parts])


def joined(found: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scores and rows of the parts of a batch, one after the other, as those of the batch."""
    if len(found) == 1:
        return found[0]
    return torch.cat([scores for scores, _ in found]), {
        name: torch.cat([rows[name] for _, rows in found]) for name in found[0][1]
    }


def in_turn(begun: Iterable[RowsToCome]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Yield rows of batches on the host, each while a device computes the next batch if there is a device."""
    before: RowsToCome | None = None
    for rows in begun:
        if before is not None:
            yield before.wait()
        before = None if rows.there else rows
        if rows.there:
            yield rows.wait()
    if before is not None:
        yield before.wait()


def _total(values: Tensor) -> Tensor:
    # The range of half precision is too small for the sums.
    return values.sum(dtype=torch.promote_types(values.dtype, torch.float32)).double()


def _bad(dtype: torch.dtype, what: str, bad: int) -> str:
    fix = (
        "use dtype float32 if the model asks for numbers that float64 has no room for"
        if dtype == torch.float64
        else "use dtype float64 if the model overflows (bfloat16 instead of float16)"
    )
    return f"{what} is NaN or infinite for example {bad} of the batch; check its text, or {fix}"


def _too_large(values: Tensor, what: str, bad: int) -> str:
    return (
        f"{what} is too large for {str(values.dtype).removeprefix('torch.')}, which ends at "
        f"{torch.finfo(values.dtype).max:g}, for example {bad} of the batch; keep rows in float32"
    )


def _first_bad(values: Tensor) -> int | None:
    bad = ~torch.isfinite(values).flatten(1).all(dim=1)
    return int(bad.nonzero()[0]) if bool(bad.any()) else None
