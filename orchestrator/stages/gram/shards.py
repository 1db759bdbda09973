"""The rows of shards that a worker multiplies, read from the disk or computed, and held in memory."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.stages.capture import CaptureParameters, of_groups
from orchestrator.stages.context.blocks import SCORES
from orchestrator.stages.context.work import Work
from orchestrator.stages.gram import GramParameters
from orchestrator.stages.gram.costs import making_bytes
from orchestrator.store.artifacts import Artifact
from orchestrator.store.batched import Array
from orchestrator.store.stage import Stage

if TYPE_CHECKING:
    from ntk_dist.kernel.rows import AnyRows
    from orchestrator.stages.capture.compute import ResidentRows


@dataclass(eq=False)
class StoredShard:
    """The rows of a shard in an artifact.

    Attributes:
        artifact: the artifact.
        in_panel: as in `HeldShard`.
        kept: rows that were read and stay in memory, by group; None if none do, and each product reads them anew.
    """

    artifact: Artifact
    in_panel: bool = False
    kept: "dict[str, AnyRows] | None" = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts of the capture."""
        return self.artifact.facts

    @property
    def scores(self) -> Array:
        """Initial outputs f_0, (examples, rows per example)."""
        return self.artifact.array(SCORES)

    def rows(self, group: str) -> "AnyRows":
        """Return the rows (rows, p_g) of a group."""
        if self.kept is None:
            return self.artifact.rows(group)
        if group not in self.kept:
            read = self.artifact.rows(group)
            self.kept[group] = read if isinstance(read, np.ndarray) else read.whole()
        return self.kept[group]


@dataclass(eq=False)
class HeldShard:
    """The rows of a shard in memory; in a group of processes those of this one's examples.

    Attributes:
        resident: the rows.
        in_panel: whether they were the columns of a tile: they are of the panel that others are multiplied with.
    """

    resident: "ResidentRows"
    in_panel: bool = False

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts of the capture."""
        return self.resident.facts

    @property
    def scores(self) -> Array:
        """Initial outputs f_0, (examples, rows per example), of all processes."""
        return self.resident.scores

    def rows(self, group: str) -> "AnyRows":
        """Return the rows (rows, p_g) of a group."""
        return self.resident.rows[group]


Shard = StoredShard | HeldShard

SIDES = ("left", "right")
"""Roles of the shards of the rows and of the columns of a tile."""


@dataclass
class HeldShards:
    """Shards whose rows a worker holds from tile to tile, the least recently used first.

    Those that are not of a panel go before others: they were multiplied with all of it.

    Attributes:
        held: the shards, by the identity of their capture; what is computed has the groups of the tiles alone.
        halvings: how often the batches were halved in which they were computed.
        largest: bytes of the largest shard that was read.
    """

    held: dict[str, Shard] = field(default_factory=dict)
    halvings: int = 0
    largest: int = 0

    def sides(self, stage: Stage[GramParameters], work: Work) -> tuple[Shard, Shard]:
        """Return the shards of the rows and of the columns of a tile; the same one twice on the diagonal."""
        if self.halvings != work.halvings:
            # Their bits are those of other batches, and provenance says by a tile's own halvings which it has.
            self.held.clear()
            self.halvings = work.halvings
        self._keep_what_all_hold(work)
        groups = frozenset(group for block in stage.parameters.blocks for group in block)
        within = {each.stage_id: of_groups(each, groups) for each in stage.within}
        captures = {each.stage_id: each for each in within.values()}
        artifacts = {stage.inputs[side][0][1]: work.input(stage, side) for side in SIDES if stage.together is None}
        needed = [*captures, *artifacts]  # in one order: the processes of a group compute the same shard at a time
        most = self._most(stage, work, list(artifacts.values()))
        for missing in (each for each in needed if each not in self.held):
            self._make_room(most - 1, keep=needed)
            if missing in captures:
                self.held[missing] = _computed(captures[missing], work)
            else:
                self.held[missing] = StoredShard(artifacts[missing], kept={} if most > len(needed) else None)
        self._make_room(most, keep=needed)
        ids = (stage.inputs[side][0][1] for side in SIDES)
        left, right = (self._used(within[each].stage_id if each in within else each) for each in ids)
        right.in_panel = True
        return left, right

    def _keep_what_all_hold(self, work: Work) -> None:
        """Forget shards that another process of the group has forgotten: they are computed together, or not at all."""
        if work.process_group.size == 1:
            return
        common = set.intersection(*map(set, work.process_group.gathered(list(self.held))))
        self.held = {stage_id: shard for stage_id, shard in self.held.items() if stage_id in common}

    def _most(self, stage: Stage[GramParameters], work: Work, artifacts: Sequence[Artifact]) -> int:
        """Return how many shards may be held; after memory ran out, none for other tiles."""
        if work.halvings:
            return len(stage.within) or len(artifacts)
        if stage.together is not None:
            return stage.together.held
        n_rows = [int(artifact.facts["rows"]) for artifact in artifacts]
        room = work.sweep.spec.compute.memory_budget - making_bytes(stage.parameters, n_rows[0], n_rows[-1])
        self.largest = max(self.largest, *(artifact.array_bytes for artifact in artifacts))
        return max(len(artifacts), room // self.largest)

    def _used(self, stage_id: str) -> Shard:
        """Return a shard that is held, and make it the most recently used one."""
        self.held[stage_id] = found = self.held.pop(stage_id)
        return found

    def _make_room(self, most: int, keep: Collection[str]) -> None:
        """Forget shards until at most so many are held."""
        in_turn = sorted(self.held, key=lambda held: self.held[held].in_panel)  # stable: oldest first
        for each in in_turn:
            if len(self.held) <= most:
                return
            if each not in keep:
                del self.held[each]


def _computed(stage: Stage[CaptureParameters], work: Work) -> HeldShard:
    from orchestrator.stages.capture.compute import resident_rows

    return HeldShard(resident_rows(stage, work))
