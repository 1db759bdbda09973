"""Per-example Jacobian rows from hooks on linear modules: one forward, one backward for each output.

For y_t = W a_t + c the gradient of a score with respect to W is sum_t b_t a_t^T and with respect to c is
sum_t b_t, where b_t is the gradient with respect to y_t and t runs over the positions of one example
(Goodfellow, arXiv 1510.01799; Rochette et al., arXiv 1912.06015 for sequences). So a backward pass that stops
at the outputs y gives every example's own gradient by one batched matrix product a module.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ntk_dist.errors import InputLayoutError, NonFiniteError, NtkError
from ntk_dist.tracked import Groups, TrackedLinear, check_groups


@dataclass(frozen=True)
class _Call:
    """One call of a tracked module: its input, and where its output stands in the graph."""

    inputs: Tensor
    version: int
    edge: GradientEdge


@dataclass(eq=False)
class _Recorder:
    """Forward hook that keeps what the module saw and makes its output differentiable."""

    linear: TrackedLinear
    calls: list[_Call] = field(default_factory=list)

    def __call__(self, _module: nn.Module, args: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
        if not outputs.requires_grad:
            # nothing before this module is tracked: the graph starts here
            outputs = outputs.detach().requires_grad_()
        # The model may go on to change the output in place, which moves a tensor, and drops an ordinary view,
        # to another place in the graph. An unsafe view is a node of its own that stays where it is, and it
        # copies nothing.
        outputs = torch.ops.aten._unsafe_view(outputs, outputs.shape)
        self.calls.append(_Call(args[0].detach(), args[0]._version, get_gradient_edge(outputs)))
        return outputs


def jacobian_rows(
    score: Callable[[], Tensor], groups: Groups, *, before_backward: Callable[[int], None] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Scores of a batch and, for each group, their gradients with respect to the group's parameters.

    The model must be in eval mode and must treat the examples of a batch apart. None of its parameters needs
    to require a gradient; those that do make the pass slower, not wrong. Positions that cannot influence a
    score (padding under an attention mask) add exactly nothing.

    Args:
        score: runs the model on the batch and returns (B, R) scores.
        groups: the tracked modules by group; a module may be called several times in `score`, its gradients
            add.
        before_backward: called with the number of the output before each backward pass, for models that have to be
            made ready for more than one.

    Returns:
        The scores (B, R), detached, and for each group the rows (B, R, p_g) in the dtype of the scores,
        columns in the order of `ntk_dist.tracked`; p_g = 0 for a group without modules.

    Raises:
        NtkError: the scores are not a matrix, or the model overwrites the input of a tracked module.
        NonFiniteError: a score or a gradient is NaN or infinite; names group and position in the batch.
        TiedWeightsError: a parameter is tracked twice.
        InputLayoutError: a module's input has no example axis.
    """
    check_groups(groups)
    recorders = {name: [_Recorder(linear) for linear in linears] for name, linears in groups.items()}
    with torch.enable_grad(), _hooked([recorder for group in recorders.values() for recorder in group]):
        scores = score()
    if scores.ndim != 2:
        raise NtkError(f"the scores must be (examples, outputs), not of shape {tuple(scores.shape)}")
    _check_finite(scores.detach(), "a score")
    rows = {
        name: torch.zeros(
            *scores.shape, sum(r.linear.n_parameters for r in group), dtype=scores.dtype, device=scores.device
        )
        for name, group in recorders.items()
    }
    for output, gradients in enumerate(_output_gradients(scores, recorders, before_backward)):
        for name, group in recorders.items():
            _fill(rows[name][:, output], group, gradients)
    for name, values in rows.items():
        _check_finite(values, f"the gradient of group {name}")
    return scores.detach(), rows


def _output_gradients(
    scores: Tensor, recorders: dict[str, list[_Recorder]], before_backward: Callable[[int], None] | None
) -> Iterator[Iterator[Tensor | None]]:
    """For each score its gradient at each recorded call, in the order of the calls."""
    edges = [call.edge for group in recorders.values() for recorder in group for call in recorder.calls]
    if not scores.requires_grad or not edges:
        return
    last = scores.shape[1] - 1
    for output in range(last + 1):
        direction = torch.zeros_like(scores)
        direction[:, output] = 1
        if before_backward is not None:
            before_backward(output)
        yield iter(torch.autograd.grad(scores, edges, direction, retain_graph=output < last, allow_unused=True))


@contextmanager
def _hooked(recorders: list[_Recorder]) -> Iterator[None]:
    handles = [recorder.linear.module.register_forward_hook(recorder) for recorder in recorders]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _fill(rows: Tensor, group: list[_Recorder], gradients: Iterator[Tensor | None]) -> None:
    """Write the gradients of one score, (B, p_g), taking one of `gradients` for each call."""
    start = 0
    for recorder in group:
        linear = recorder.linear
        for call_number, call in enumerate(recorder.calls):
            gradient = next(gradients)
            if call.inputs._version != call.version:
                raise NtkError(
                    f"the model changes the input of {linear.name} in place, so that its gradient is lost; leave "
                    "it out of the targets"
                )
            if gradient is not None:  # None: no score depends on this call
                columns = rows[:, start : start + linear.n_parameters]
                _add_call(columns, linear, call.inputs, gradient, first=call_number == 0)
        start += linear.n_parameters


def _add_call(columns: Tensor, linear: TrackedLinear, inputs: Tensor, gradient: Tensor, *, first: bool) -> None:
    """Add the gradients of one call, (B, its parameters), to columns that are still zero at the first."""
    a = _by_example(inputs, len(columns), linear.name)
    b = _by_example(gradient, len(columns), linear.name)
    n_weights = 0
    if linear.weight:
        left, right = (b, a) if isinstance(linear.module, nn.Linear) else (a, b)
        n_weights = linear.module.weight.numel()
        weights = columns[:, :n_weights].view(len(columns), *linear.module.weight.shape)
        # written in place: a product that is copied afterwards costs as much again for short examples
        if first:
            torch.bmm(left.transpose(1, 2), right, out=weights)
        else:
            weights.baddbmm_(left.transpose(1, 2), right)
    if linear.bias:
        columns[:, n_weights:] += b.sum(dim=1)


def _by_example(values: Tensor, size: int, name: str) -> Tensor:
    """(B, positions, features) from whatever leading axes the module was called with."""
    if size != 1 and (values.ndim < 2 or values.shape[0] != size):
        raise InputLayoutError(
            f"{name} was called with a tensor of shape {tuple(values.shape)} in a batch of {size} examples, "
            "so its positions cannot be told apart by example; leave it out of the targets, or set "
            "batch_tokens to 1 so that examples go one at a time"
        )
    return values.reshape(size, -1, values.shape[-1])


def _check_finite(values: Tensor, what: str) -> None:
    # one sum tells, and costs less than a mask; only a suspicious one is looked into
    if bool(torch.isfinite(values.sum())):
        return
    bad = ~torch.isfinite(values).flatten(1).all(dim=1)
    if bool(bad.any()):
        raise NonFiniteError(
            f"{what} is NaN or infinite for example {int(bad.nonzero()[0])} of the batch; look at its text, "
            "or use dtype float64 if the model overflows"
        )
