"""Backward passes that run the layers of a model again, so that only what enters each layer is kept.

The graph of a pass is cut at the layers: outside them (embeddings, final norm, head) it is kept as it is, and of each
layer its input. Going backward, one layer after the other runs again with its graph, all outputs go back through it,
and the graph is dropped before the next (Chen et al., arXiv 1604.06174, with one segment a layer).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ntk_dist.errors import NtkError
from ntk_dist.jacobian.forwards import replaced_forwards
from ntk_dist.jacobian.other_uses import OtherUses
from ntk_dist.jacobian.recording import Recorder, hooked, recorded
from ntk_dist.jacobian.row_sums import RowSums

_NOT_CUTTABLE = (
    "the layers of this architecture cannot be run again one by one: hidden states are not their first argument, or "
    "they pass on something else that depends on tracked parameters; leave checkpointing out"
)
_FIRST = "hidden_states"


@dataclass(frozen=True, eq=False)
class _Run:
    """One run of a layer.

    Attributes:
        layer: the layer.
        arguments: what it was called with, by position.
        named: the same by name.
        hidden: the hidden states among these.
        version: of `hidden`.
        leaf: the hidden states that it returned, where the graph outside the layers begins again.
    """

    layer: nn.Module
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    hidden: Tensor
    version: int
    leaf: Tensor

    def with_hidden(self, hidden: Tensor) -> Any:
        """Run the layer on other hidden states."""
        if self.arguments:
            return self.layer(hidden, *self.arguments[1:], **self.named)
        return self.layer(**self.named | {_FIRST: hidden})


class LayerByLayer:
    """One pass through a model, forward without the layers' graphs and back through one layer at a time.

    Args:
        layers: the layers, see `ntk_dist.jacobian.capture.jacobian_rows`.
        recorders: of all tracked modules.
        uses: of the same modules.
        around: gives the context in which layers run again.
        ready: called before each backward pass with the number of those before it through the same graph.

    Attributes:
        outside: recorders of the modules outside the layers, which record in the forward pass.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        recorders: Sequence[Recorder],
        uses: OtherUses,
        around: Callable[[], AbstractContextManager[object]],
        ready: Callable[[int], None],
    ) -> None:
        self._layers = list(layers)
        self._uses = uses
        self._inside: dict[nn.Module, list[Recorder]] = {}
        for layer in layers:
            modules = set(layer.modules())
            self._inside[layer] = [recorder for recorder in recorders if recorder.watched in modules]
        within = {recorder for group in self._inside.values() for recorder in group}
        self.outside = [recorder for recorder in recorders if recorder not in within]
        self._around = around
        self._ready = ready
        self._runs: list[_Run] = []

    def run(self, score: Callable[[], Tensor]) -> Tensor:
        """Return the scores, with the graph of what lies outside the layers alone; it begins again at their outputs."""
        with replaced_forwards({layer: partial(self._forward, layer, layer.forward) for layer in self._layers}):
            return score()

    def backward(self, scores: Tensor, sums: RowSums) -> None:
        """Add the gradients of every score at all calls of tracked modules.

        Raises:
            NtkError: layers hand on more than hidden states, or overwrite them.
        """
        if not scores.requires_grad:
            return
        outputs = range(scores.shape[1])
        gradients: list[dict[int, Tensor]] = [{} for _ in self._runs]
        for output in outputs:
            direction = torch.zeros_like(scores)
            direction[:, output] = 1
            self._ready(output)
            self._back_outside(scores, direction, output, gradients, sums)
        while self._runs:
            # The last run: its gradients are complete, and nothing needs it afterwards.
            run, arrived = self._runs.pop(), gradients.pop()
            if not arrived:
                for recorder in self._inside[run.layer]:
                    # no gradient comes back to the layer or to any module called in it
                    recorder.called = True
            else:
                for output, gradient in self._back_through(run, arrived, sums).items():
                    self._back_outside(run.hidden, gradient, output, gradients, sums)

    def _back_through(self, run: _Run, arrived: dict[int, Tensor], sums: RowSums) -> dict[int, Tensor]:
        """Run a layer again and return, by output, the gradients at its input, if anything tracked lies before it."""
        if run.hidden._version != run.version:
            raise NtkError(_NOT_CUTTABLE)
        recorders = self._inside[run.layer]
        hidden = run.hidden.detach().requires_grad_(run.hidden.requires_grad)
        with torch.enable_grad(), self._uses.watched(), hooked(recorders), self._around():
            states, others = _split(run.with_hidden(hidden))
        if any(tensor.requires_grad for tensor in _tensors(others)):
            raise NtkError(_NOT_CUTTABLE)
        calls = recorded(recorders)
        if not states.requires_grad:
            return {}
        targets: list[Any] = [call.edge for _, call in calls]
        if hidden.requires_grad:
            targets.append(hidden)
        passed = {}
        for number, (output, gradient) in enumerate(arrived.items()):
            self._ready(number)
            found = self._uses.gradients(states, targets, gradient, retain_graph=number < len(arrived) - 1)
            for (recorder, call), own in zip(calls, found[: len(calls)], strict=True):
                sums.add(recorder, call, output, own)
            if hidden.requires_grad and found[-1] is not None:
                passed[output] = found[-1]
        for recorder in recorders:
            recorder.calls.clear()
        return passed

    def _back_outside(
        self, values: Tensor, gradient: Tensor, output: int, gradients: list[dict[int, Tensor]], sums: RowSums
    ) -> None:
        """Take a gradient back to the layers before, and to the tracked modules between them."""
        leaves = [run.leaf for run in self._runs]
        calls = recorded(self.outside)
        targets: list[Any] = [*leaves, *(call.edge for _, call in calls)]
        found = self._uses.gradients(values, targets, gradient, retain_graph=True)
        for arrived, own in zip(gradients, found[: len(leaves)], strict=True):
            if own is not None:
                arrived[output] = arrived[output] + own if output in arrived else own
        for (recorder, call), own in zip(calls, found[len(leaves) :], strict=True):
            sums.add(recorder, call, output, own)

    def _forward(self, layer: nn.Module, forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Run a layer without a graph; a new one starts at the outputs, where something tracked lies before them."""
        hidden = arguments[0] if arguments else named.get(_FIRST)
        others = [arguments[1:], {name: value for name, value in named.items() if arguments or name != _FIRST}]
        if not isinstance(hidden, Tensor) or any(tensor.requires_grad for tensor in _tensors(others)):
            raise NtkError(_NOT_CUTTABLE)
        version = hidden._version
        with torch.no_grad():
            output = forward(*arguments, **named)
        if not hidden.requires_grad and not self._inside[layer]:
            # nothing tracked so far
            return output
        states, beside = _split(output)
        leaf = states.detach().requires_grad_()
        self._runs.append(_Run(layer, arguments, named, hidden, version, leaf))
        return leaf if beside is None else (leaf, *beside)


def _split(output: Any) -> tuple[Tensor, tuple[Any, ...] | None]:
    """Return a layer's hidden states, and its other outputs; None for the latter if it returned no tuple."""
    states, beside = (output[0], tuple(output[1:])) if isinstance(output, tuple) else (output, None)
    if not isinstance(states, Tensor):
        raise NtkError(_NOT_CUTTABLE)
    return states, beside


def _tensors(values: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
