"""Per-example Jacobian rows from hooks on linear modules: one forward, one backward for each output.

For y_t = W a_t + c the gradient of a score with respect to W is sum_t b_t a_t^T and with respect to c is
sum_t b_t, where b_t is the gradient with respect to y_t and t runs over the positions of one example
(Goodfellow, arXiv 1510.01799; Rochette et al., arXiv 1912.06015 for sequences). So a backward pass that stops
at the outputs y gives every example's own gradient by one batched matrix product a module. LoRA's branches do not run
while they add nothing: see `ntk_dist.jacobian.branches`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ntk_dist.errors import NtkError
from ntk_dist.jacobian.branches import without_branches
from ntk_dist.jacobian.by_layer import LayerByLayer
from ntk_dist.jacobian.forwards import replaced_forwards
from ntk_dist.jacobian.other_uses import OtherUses
from ntk_dist.jacobian.recording import (
    Recorder,
    check_recorded,
    hooked,
    recorded,
    recorders_of,
)
from ntk_dist.jacobian.row_sums import BatchRows, RowSums
from ntk_dist.jacobian.tracked import Groups, check_groups


def jacobian_rows(
    score: Callable[[], Tensor],
    groups: Groups,
    *,
    row_dtype: torch.dtype | None = None,
    layers: Sequence[nn.Module] = (),
    around_layers: Callable[[], AbstractContextManager[object]] = nullcontext,
    before_backward: Callable[[int], None] | None = None,
    unused: set[nn.Module] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return scores of a batch and, for each group, their gradients with respect to the group's parameters.

    The model must be in eval mode and must treat the examples of a batch apart. None of its parameters needs
    to require a gradient; those that do make the pass slower, not wrong. Positions that cannot influence a
    score (padding under an attention mask) add exactly nothing.

    Args:
        score: runs the model on the batch and returns (B, R) scores.
        groups: the tracked modules by group; a module may be called several times in `score`, its gradients
            add.
        row_dtype: precision of scores and rows; None takes that of the scores, but single precision for scores in half
            precision. Sums over positions are made in at least single precision, and rounded at the end.
        layers: modules of which only the inputs are kept until the backward pass, which runs them again one after the
            other, each once for all outputs: the same rows from less memory, for another forward pass. Each takes
            hidden states as its first argument, and returns hidden states or a tuple that starts with them.
        around_layers: gives the context in which layers run again, where `score` runs the model in one.
        before_backward: called before each backward pass through the model or a layer with the number, from 0, of the
            passes through the same graph before it, for models that have to be made ready for more than one.
        unused: tracked modules that earlier passes of the same model never called and found without a part in the
            scores; others are added. Only a pass with one that is not among them runs the model again to look for it.

    Returns:
        The scores (B, R), detached, and for each group the rows (B, R, p_g), columns in the order of
        `ntk_dist.jacobian.tracked`; p_g = 0 for a group without modules.

    Raises:
        NonFiniteError: a score or a gradient is NaN or infinite, or too large for `row_dtype`; names group and position
            in the batch.
        NtkError: the scores are not a matrix, the model overwrites the input of a tracked module, or layers hand on
            more than hidden states.
        TiedWeightsError: a parameter is tracked twice.
        InputLayoutError: a module's input has no example axis.
        NotRecordedError: the scores depend on a tracked module that was not called, in this pass, or an adapter was
            not.
    """
    return begin_rows(
        score,
        groups,
        row_dtype=row_dtype,
        layers=layers,
        around_layers=around_layers,
        before_backward=before_backward,
        unused=unused,
    ).here()


def begin_rows(
    score: Callable[[], Tensor],
    groups: Groups,
    *,
    row_dtype: torch.dtype | None = None,
    layers: Sequence[nn.Module] = (),
    around_layers: Callable[[], AbstractContextManager[object]] = nullcontext,
    before_backward: Callable[[int], None] | None = None,
    unused: set[nn.Module] | None = None,
) -> BatchRows:
    """Return what `jacobian_rows` returns, still on the device: the host does not wait until it is computed.

    Args and errors: as `jacobian_rows`, but for NonFiniteError, which whoever waits raises.
    """
    check_groups(groups)
    recorders = recorders_of(groups)
    ready = before_backward or (lambda _number: None)
    uses = OtherUses([recorder.linear for recorder in recorders])
    again = LayerByLayer(layers, recorders, uses, around_layers, ready) if layers else None
    # layers that run again have graphs of their own, so every pass has to look for all modules
    known = set() if unused is None or layers else unused
    inside = hooked(recorders if again is None else again.outside)
    with _skipped(recorders, uses):
        with torch.enable_grad(), uses.watched(), inside:
            scores = score() if again is None else again.run(score)
        if scores.ndim != 2:
            raise NtkError(f"the scores must be (examples, outputs), not of shape {tuple(scores.shape)}")
        sums = RowSums(groups, recorders, scores, row_dtype)
        if again is None:
            _backward(scores, recorders, uses, sums, ready)
        else:
            again.backward(scores, sums)
    check_recorded(recorders, score, known, elsewhere=uses.first, reached=sums.has_begun)
    return sums.finished(scores.detach())


def _skipped(recorders: Sequence[Recorder], uses: OtherUses) -> AbstractContextManager[None]:
    """Return the context in which the model runs without the branches that its recorders do not need."""

    def run(recorder: Recorder, base: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if torch.is_grad_enabled() and not recorder.inside:
            uses.note_use(recorder.linear)
        return base(*arguments, **named)

    bases = without_branches(each.branch for each in recorders if each.branch is not None)
    return replaced_forwards({
        each.watched: partial(run, each, bases[each.watched]) for each in recorders if each.branch is not None
    })  # fmt: skip


def _backward(
    scores: Tensor, recorders: list[Recorder], uses: OtherUses, sums: RowSums, ready: Callable[[int], None]
) -> None:
    """Add the gradients of every score at all recorded calls, and note those that arrive otherwise."""
    if not scores.requires_grad:
        return
    calls = recorded(recorders)
    edges = [call.edge for _, call in calls]
    last = scores.shape[1] - 1
    for output in range(last + 1):
        direction = torch.zeros_like(scores)
        direction[:, output] = 1
        ready(output)
        gradients = uses.gradients(scores, edges, direction, retain_graph=output < last)
        for (recorder, call), gradient in zip(calls, gradients, strict=True):
            sums.add(recorder, call, output, gradient)
