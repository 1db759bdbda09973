"""The rows of shards that a worker multiplies: read from the disk, or computed and held in memory."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.stages.capture import CaptureParameters
from orchestrator.stages.context.blocks import SCORES
from orchestrator.stages.context.work import Work
from orchestrator.stages.gram import GramParameters
from orchestrator.store.artifacts import Artifact
from orchestrator.store.batched import Array
from orchestrator.store.stage import Stage

if TYPE_CHECKING:
    from ntk_dist.kernel.rows import AnyRows
    from orchestrator.stages.capture.compute import ResidentRows


@dataclass(frozen=True, eq=False)
class StoredShard:
    """The rows of a shard in an artifact."""

    artifact: Artifact

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
        return self.artifact.rows(group)


@dataclass(eq=False)
class HeldShard:
    """The rows of a shard in memory.

    Attributes:
        resident: the rows.
        in_panel: True once they were the columns of a tile: they are of the panel that others are multiplied with.
    """

    resident: "ResidentRows"
    in_panel: bool = False

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts of the capture."""
        return self.resident.facts

    @property
    def scores(self) -> Array:
        """Initial outputs f_0, (examples, rows per example)."""
        return self.resident.scores

    def rows(self, group: str) -> "AnyRows":
        """Return the rows (rows, p_g) of a group."""
        return self.resident.rows[group]


Shard = StoredShard | HeldShard


@dataclass
class HeldShards:
    """Shards whose rows a worker holds from tile to tile, the least recently used first.

    Those that are not of a panel go before others: they were multiplied with all of it.

    Attributes:
        held: the shards, by the identity of their capture.
        halvings: how often the batches were halved in which they were computed.
    """

    held: dict[str, HeldShard] = field(default_factory=dict)
    halvings: int = 0

    def sides(self, stage: Stage[GramParameters], work: Work) -> tuple[Shard, Shard]:
        """Return the shards of the rows and of the columns of a tile; the same one twice on the diagonal."""
        if stage.together is None:
            stored = StoredShard(work.input(stage, "left"))
            same = stage.inputs["left"] == stage.inputs["right"]
            return stored, stored if same else StoredShard(work.input(stage, "right"))
        captures = {each.stage_id: each for each in stage.within}
        left_id, right_id = (stage.inputs[side][0][1] for side in ("left", "right"))
        if self.halvings != work.halvings:
            # Their bits are those of other batches, and provenance says by a tile's own halvings which it has.
            self.held.clear()
            self.halvings = work.halvings
        # After memory ran out, nothing is held for other tiles.
        most = len(captures) if work.halvings else stage.together.held
        for missing in captures.keys() - self.held.keys():
            self._make_room(most - 1, keep=captures.keys())
            self.held[missing] = self._computed(captures[missing], work)
        left, right = (self._used(each) for each in (left_id, right_id))
        right.in_panel = True
        return left, right

    def _computed(self, stage: Stage[CaptureParameters], work: Work) -> HeldShard:
        from orchestrator.stages.capture.compute import resident_rows

        return HeldShard(resident_rows(stage, work))

    def _used(self, stage_id: str) -> HeldShard:
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
