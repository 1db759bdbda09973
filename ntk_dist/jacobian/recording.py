"""Inputs of tracked modules and places of their outputs in the graph, recorded by forward hooks.

Not every module is called: an architecture may read its weight directly, or run the parts of a layer without the layer.
A module that is not called records nothing; its rows are zero only if the outputs do not depend on it. An adapter that
is not called is an error rather than zero rows: the model runs without it. A module from whose output no gradient can
arrive is none the model uses, or one whose output the model detaches.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ntk_dist.errors import NotRecordedError
from ntk_dist.jacobian.branches import Branch
from ntk_dist.jacobian.other_uses import differentiable
from ntk_dist.jacobian.tracked import Groups, TrackedLinear

_ADVICE = "leave it out of the targets, and compute.checkpointing out if that is set"


@dataclass(frozen=True)
class Call:
    """One call of a tracked module.

    Attributes:
        inputs: what it was called with, or would be if its branch ran.
        version: of `inputs` at that time; another one later means that they were overwritten.
        edge: where its output stands in the graph.
    """

    inputs: Tensor
    version: int
    edge: GradientEdge


@dataclass(eq=False)
class Recorder:
    """Forward hook that keeps what the module saw and makes its output differentiable.

    Attributes:
        linear: the module.
        group: its group.
        start: its first column in the rows of the group.
        branch: the one at whose end the module stands, if it does not run: then what is recorded is the call of the
            adapted module.
        calls: its calls so far.
        called: whether it was ever called with a graph.
        hidden: whether it was ever called without one.
        inside: whether it is being called.
    """

    linear: TrackedLinear
    group: str
    start: int
    branch: Branch | None = None
    calls: list[Call] = field(default_factory=list)
    called: bool = False
    hidden: bool = False
    inside: bool = False

    def begin(self, _module: nn.Module, _args: object) -> None:
        """Note that a call begins."""
        self.inside = True

    def __call__(self, _module: nn.Module, args: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
        """Record a call; return the outputs as the model is to go on with them."""
        self.inside = False
        if not torch.is_grad_enabled():
            # the model asks for no gradient here: an index that it chooses by, say
            self.hidden = True
            return outputs
        self.called = True
        if not outputs.requires_grad:
            # nothing before this module is tracked: the graph starts here
            outputs = outputs.detach().requires_grad_()
        # The model may go on to change the output in place, which moves a tensor, and drops an ordinary view,
        # to another place in the graph. An unsafe view is a node of its own that stays where it is, and it
        # copies nothing.
        outputs = torch.ops.aten._unsafe_view(outputs, outputs.shape)
        inputs = args[0].detach()
        if self.branch is not None:
            inputs = self.branch.inputs_of_last(inputs)
        self.calls.append(Call(inputs, inputs._version, get_gradient_edge(outputs)))
        return outputs

    @property
    def watched(self) -> nn.Module:
        """The module whose calls are recorded."""
        return self.linear.module if self.branch is None else self.branch.adapted

    @property
    def scale(self) -> float:
        """What the product of recorded inputs and gradients is multiplied by."""
        return 1.0 if self.branch is None else self.branch.scale


def recorders_of(groups: Groups) -> list[Recorder]:
    """Return a recorder for each tracked module, in the order of the groups.

    Branches that add nothing, and of which B alone is tracked, have recorders with which they need not run.
    """
    modules = {linear.module for linears in groups.values() for linear in linears}
    recorders = []
    for group, linears in groups.items():
        start = 0
        for linear in linears:
            branch = linear.branch
            skipped = branch is not None and branch.first not in modules and branch.is_idle()
            recorders.append(Recorder(linear, group, start, branch if skipped else None))
            start += linear.n_parameters
    return recorders


@contextmanager
def hooked(recorders: Sequence[Recorder]) -> Iterator[None]:
    """Let the recorders record inside this context."""
    handles = [recorder.watched.register_forward_hook(recorder) for recorder in recorders]
    handles += [recorder.watched.register_forward_pre_hook(recorder.begin) for recorder in recorders]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def recorded(recorders: Sequence[Recorder]) -> list[tuple[Recorder, Call]]:
    """Return all calls with their recorders."""
    return [(recorder, call) for recorder in recorders for call in recorder.calls]


def check_recorded(
    recorders: Sequence[Recorder],
    score: Callable[[], Tensor],
    unused: set[nn.Module],
    *,
    elsewhere: TrackedLinear | None,
    reached: Callable[[Recorder], bool],
) -> None:
    """Check that recorded calls are all by which scores depend on tracked modules, and that all adapters were called.

    Args:
        recorders: of all tracked modules, after a pass.
        score: runs the model a few times more, where there are modules that are not `unused`.
        unused: modules on which, as earlier passes found, nothing depends without a call, or by a call that no gradient
            reaches; those that are found now are added.
        elsewhere: a module that the graph of the pass has outside of its calls.
        reached: tells whether a gradient arrived at a call of a recorder's module.

    Raises:
        NotRecordedError: they are not, or an adapter was not, or a module ran without a graph alone; names the module.
    """
    for recorder in recorders:
        if recorder.hidden and not recorder.called:
            raise NotRecordedError(
                f"{recorder.linear.name} runs only where the model has turned gradients off, as architectures with a "
                "backward pass of their own do (Reformer), so that its rows cannot be recorded; leave it out of the "
                "targets, or use another architecture"
            )
    silent = [recorder.linear for recorder in recorders if not recorder.called]
    for linear in silent:
        if linear.adapter:
            raise NotRecordedError(
                f"{linear.name} was not called: the model never runs the module that it adapts, reads that module's "
                f"weight directly, or runs it apart from its layer, so that the adapter changes nothing; {_ADVICE}"
            )
    named = None if elsewhere is None or elsewhere not in silent else elsewhere
    if named is None and not unused.issuperset(linear.module for linear in silent):
        named = _with_gradient(silent, score)
        if named is None and _takes_part(silent, score):
            named = next((linear for linear in silent if _takes_part([linear], score)), silent[0])
    if named is not None:
        raise NotRecordedError(
            f"{named.name} takes part in the outputs without being called as a module: the model reads its weight "
            f"directly, or runs it apart from its layer. So its rows cannot be recorded; {_ADVICE}"
        )
    if elsewhere is not None:
        raise NotRecordedError(
            f"{elsewhere.name} takes part in the outputs also beside being called as a module: the model reads its "
            "weight directly (as where weights are tied by hand), or runs it apart from its layer. So its rows would "
            f"lack a part of the gradient; {_ADVICE}"
        )
    unused.update(linear.module for linear in silent)
    _check_attached([each.linear for each in recorders if each.called and not reached(each)], score, unused)


def _check_attached(linears: Sequence[TrackedLinear], score: Callable[[], Tensor], unused: set[nn.Module]) -> None:
    """Check that nothing depends on modules whose outputs no gradient reaches, and add them to those `unused`."""
    others = [linear for linear in linears if linear.module not in unused]
    if others and _changes_with(others, score):
        named = next((linear for linear in others if _changes_with([linear], score)), others[0])
        raise NotRecordedError(
            f"{named.name} takes part in the outputs, but no gradient goes back to it: the model detaches what it "
            "returns, or computes with it where gradients are turned off. So its rows would be zero; leave it out of "
            "the targets"
        )
    unused.update(linear.module for linear in others)


def _with_gradient(linears: Sequence[TrackedLinear], score: Callable[[], Tensor]) -> TrackedLinear | None:
    """Return the first module through which the graph of the scores goes, if any."""
    parameters = [parameter for linear in linears for parameter in linear.parameters]
    with differentiable(linears), torch.enable_grad():
        scores = score()
        if not scores.requires_grad:
            return None
        found = iter(torch.autograd.grad(scores.sum(), parameters, allow_unused=True))
    gradients = [(linear, [next(found) for _ in linear.parameters]) for linear in linears]
    return next((linear for linear, own in gradients if any(each is not None for each in own)), None)


@torch.no_grad()
def _takes_part(linears: Sequence[TrackedLinear], score: Callable[[], Tensor]) -> bool:
    """Tell whether the scores change with the sign of some parameters, since a graph may lack some dependencies."""
    parameters = {id(parameter): parameter for linear in linears for parameter in linear.parameters}.values()
    before = score()
    try:
        for parameter in parameters:
            parameter.neg_()
        after = score()
    finally:
        for parameter in parameters:
            parameter.neg_()
    change = torch.linalg.vector_norm(after - before)
    return bool(change > torch.finfo(before.dtype).eps ** 0.5 * torch.linalg.vector_norm(before))


@torch.no_grad()
def _changes_with(linears: Sequence[TrackedLinear], score: Callable[[], Tensor]) -> bool:
    """Tell whether the scores change with small changes of some parameters.

    They are small because experts that are chosen by a module's output have a choice that a derivative does not see.
    """
    parameters = {id(parameter): parameter for linear in linears for parameter in linear.parameters}.values()
    kept = [parameter.clone() for parameter in parameters]
    before = score()
    roundoff = torch.finfo(before.dtype).eps
    draw = torch.Generator().manual_seed(0)
    try:
        for parameter in parameters:
            signs = torch.randint(0, 2, parameter.shape, generator=draw).to(parameter) * 2 - 1
            sizes = parameter.abs() if bool(parameter.any()) else torch.ones_like(parameter)
            parameter.add_(roundoff ** (1 / 3) * sizes * signs)
        after = score()
    finally:
        for parameter, values in zip(parameters, kept, strict=True):
            parameter.copy_(values)
    change = torch.linalg.vector_norm(after - before)
    return bool(change > roundoff**0.75 * torch.linalg.vector_norm(before))
