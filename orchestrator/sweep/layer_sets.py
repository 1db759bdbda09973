"""Layer sets: from the choices in a spec to sets of groups, each with a readable name."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

from orchestrator.errors import SpecError
from orchestrator.spec.grid_section import (
    ExplicitGroups,
    ExplicitLayers,
    LayerSetChoice,
    SubsetsUpTo,
)

HEAD = "head"
"""Name of the group that holds the head's parameters."""

KEY = "grid.layer_sets"
"""The key of the spec with the choices."""


@dataclass(frozen=True)
class GroupFacts:
    """Facts about a group, known before anything runs.

    Attributes:
        name: `layer.target`, or `head`.
        layer: the layer's number, counted from 0; None for modules outside the layers.
        target: the target module.
        n_parameters: parameters with a gradient that is not structurally zero.
        zero_parts: names of the parts whose gradient is structurally zero.
    """

    name: str
    layer: int | None
    target: str
    n_parameters: int
    zero_parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerSet:
    """A set of groups that is adapted together.

    Attributes:
        name: `layers:0-2,5`, `target:query`, `groups:3.query+4.value` or `head`.
        groups: names of its groups, in the model's order.
        layers: numbers of the layers that it has groups of, ascending.
        n_parameters: parameters of all its groups.
    """

    name: str
    groups: tuple[str, ...]
    layers: tuple[int, ...]
    n_parameters: int


def expand_layer_sets(
    choices: Sequence[LayerSetChoice], groups: Sequence[GroupFacts], *, head_in_kernel: bool
) -> list[LayerSet]:
    """Return the distinct layer sets that `choices` describe, in the order of their first occurrence.

    Args:
        choices: the section `grid.layer_sets` of a spec.
        groups: every group of the model, in the model's order, the head included.
        head_in_kernel: whether the head's group joins every set.

    Raises:
        SpecError: a choice names a layer or a group that does not exist, or describes no set at all.
    """
    expander = _Expander(groups, head_in_kernel)
    found: dict[frozenset[str], LayerSet] = {}
    for choice in choices:
        empty = True
        for members in expander.members(choice):
            found.setdefault(members, expander.layer_set(members))
            empty = False
        if empty:
            raise SpecError(f"`{_plain(choice)}` describes no layer set of this model", key=KEY)
    return list(found.values())


def compress(numbers: Iterable[int]) -> str:
    """Write ascending integers as ranges: 0, 1, 2, 5 becomes `0-2,5`."""
    runs = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in ends)


def _plain(choice: LayerSetChoice) -> str:
    return choice if isinstance(choice, str) else str(choice.model_dump())


class _Expander:
    def __init__(self, groups: Sequence[GroupFacts], head_in_kernel: bool) -> None:
        self.groups = {group.name: group for group in groups if head_in_kernel or group.name != HEAD}
        self.order = {name: position for position, name in enumerate(self.groups)}
        self.always = frozenset([HEAD]) & frozenset(self.groups)
        self.by_layer: dict[int, frozenset[str]] = {}
        self.by_target: dict[str, frozenset[str]] = {}
        for group in self.groups.values():
            if group.layer is not None:
                self.by_layer[group.layer] = self.by_layer.get(group.layer, frozenset()) | {group.name}
            if group.name != HEAD:
                self.by_target[group.target] = self.by_target.get(group.target, frozenset()) | {group.name}

    def members(self, choice: LayerSetChoice) -> Iterator[frozenset[str]]:
        if choice == "each_target":
            yield from (members | self.always for members in self.by_target.values())
        elif isinstance(choice, ExplicitGroups):
            yield from (self._named(names) | self.always for names in choice.groups)
        else:
            for layers in self._layers(choice):
                yield frozenset().union(*(self.by_layer[layer] for layer in layers), self.always)

    def _layers(self, choice: LayerSetChoice) -> Iterator[tuple[int, ...]]:
        layers = sorted(self.by_layer)
        match choice:
            case "each_layer":
                yield from ((layer,) for layer in layers)
            case "prefixes":
                yield from (tuple(layers[: end + 1]) for end in range(len(layers)))
            case "suffixes":
                yield from (tuple(layers[start:]) for start in reversed(range(len(layers))))
            case "pairs":
                yield from combinations(layers, 2)
            case "all_layers":
                yield from [tuple(layers)] if layers else []
            case SubsetsUpTo(subsets=size):
                for length in range(1, min(size, len(layers)) + 1):
                    yield from combinations(layers, length)
            case ExplicitLayers(layers=listed):
                yield from (self._existing(chosen) for chosen in listed)

    def _existing(self, chosen: tuple[int, ...]) -> tuple[int, ...]:
        for layer in chosen:
            if layer not in self.by_layer:
                exist = compress(sorted(self.by_layer)) or "none"
                raise SpecError(f"layer {layer} does not exist or has no target; layers: {exist}", key=KEY)
        return tuple(sorted(set(chosen)))

    def _named(self, names: tuple[str, ...]) -> frozenset[str]:
        for name in names:
            if name not in self.groups:
                nearest = difflib.get_close_matches(name, self.groups, n=3, cutoff=0.3) or list(self.groups)[:3]
                raise SpecError(
                    f"there is no group `{name}`; nearest: {', '.join(nearest)}"
                    + ("; the head is out of the kernel (head.in_kernel)" if name == HEAD else ""),
                    key=KEY,
                )
        return frozenset(names)

    def layer_set(self, members: frozenset[str]) -> LayerSet:
        names = tuple(sorted(members, key=self.order.__getitem__))
        facts = [self.groups[name] for name in names]
        layers = tuple(sorted({group.layer for group in facts if group.layer is not None}))
        return LayerSet(self._name(members - self.always, layers), names, layers, sum(g.n_parameters for g in facts))

    def _name(self, members: frozenset[str], layers: tuple[int, ...]) -> str:
        if not members:
            return HEAD
        if members == frozenset().union(*(self.by_layer[layer] for layer in layers)):
            return f"layers:{compress(layers)}"
        target = next((name for name, whole in self.by_target.items() if whole == members), None)
        if target is not None:
            return f"target:{target}"
        return "groups:" + "+".join(sorted(members, key=self.order.__getitem__))
