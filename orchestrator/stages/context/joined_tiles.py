"""One tile for each place of a kernel, whose blocks several artifacts may hold."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orchestrator.store.artifacts import Artifact
from orchestrator.store.batched import Array


class HeldBlocks(Protocol):
    """What holds the kernel blocks of a tile: an artifact of a `gram` stage, or several joined."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts of the stage: the examples of `rows` and of `columns`, as [start, stop)."""

    def names(self) -> list[str]:
        """Return the names of all arrays."""

    def array(self, name: str) -> Array:
        """Return an array."""


class JoinedTile:
    """The blocks of several artifacts of the same rows and columns, which were stored one after the other.

    Args:
        parts: the artifacts.
    """

    def __init__(self, parts: Sequence[Artifact]) -> None:
        self.facts: Mapping[str, Any] = parts[0].facts
        self._holding = {name: part for part in reversed(parts) for name in part.names()}
        self._names = list(dict.fromkeys(name for part in parts for name in part.names()))

    def names(self) -> list[str]:
        """Return the names of all arrays, in the order of the artifacts."""
        return self._names

    def array(self, name: str) -> Array:
        """Return an array, of the first artifact that holds it."""
        return self._holding[name].array(name)


def joined(tiles: Sequence[Artifact]) -> list[HeldBlocks]:
    """Return one tile for all artifacts that hold the same rows and columns, in the order of the first of each."""
    by_place: defaultdict[tuple[int, ...], list[Artifact]] = defaultdict(list)
    for tile in tiles:
        by_place[*tile.facts["rows"], *tile.facts["columns"]].append(tile)
    return [parts[0] if len(parts) == 1 else JoinedTile(parts) for parts in by_place.values()]
