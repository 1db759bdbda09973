"""The finished stages of a plan, from which the rows of tables are made."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.stages.base.scope import F
from orchestrator.store.artifacts import Artifact, ArtifactStore
from orchestrator.store.stage import Stage

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan


class Finished:
    """The stages of a plan that are finished when its tables are collected; those that finish later do not count.

    Args:
        plan: the plan.
        store: the artifacts.

    Attributes:
        plan: the plan.
        store: the artifacts.
    """

    def __init__(self, plan: "Plan", store: ArtifactStore) -> None:
        self.plan = plan
        self.store = store
        self._finished = {kind: store.finished(kind) for kind in dict.fromkeys(stage.kind for stage in plan.filling)}

    def __contains__(self, stage: Stage[Any]) -> bool:
        return stage.stage_id in self._finished[stage.kind]

    def filled(self, kind: type[F]) -> Iterator[F]:
        """Yield the finished ones of the stages that fill rows of one kind, in the plan's order."""
        return (each for each in self.plan.filled_by(kind) if each.stage in self)

    def artifact(self, stage: Stage[Any]) -> Artifact:
        """Return the artifact of a stage, intact.

        Raises:
            DamagedArtifactError: it does not match its checksums.
        """
        return self.store.read(stage.kind, stage.stage_id)

    @property
    def is_all(self) -> bool:
        """True if every stage is finished that fills rows."""
        return all(stage in self for stage in self.plan.filling)
