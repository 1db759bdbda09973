"""Stages that other runs are computing, and the times at which to look at them again."""

import time

from orchestrator.store.stage import Stage
from slurm.pauses import Pauses

SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
"""Seconds between looks: the pause doubles while nothing changes, for every run that waits asks the file server."""


class Elsewhere:
    """Stages that this run needs and another run is computing."""

    def __init__(self) -> None:
        self._stages: dict[str, Stage] = {}
        self._asked: set[str] = set()
        self._pauses = Pauses(SHORTEST_PAUSE, LONGEST_PAUSE)
        self._next_look = 0.0

    def __bool__(self) -> bool:
        return bool(self._stages)

    def __contains__(self, stage_id: str) -> bool:
        return stage_id in self._stages

    def add(self, stage: Stage) -> None:
        """Note that another run is computing a stage."""
        if not self._stages:
            self._next_look = time.monotonic() + self._pauses.seconds
        self._stages[stage.stage_id] = stage

    def ended(self, stage_id: str) -> None:
        """Note that no other run is computing a stage any more: after one has ended, others may end soon."""
        if stage_id in self._asked:
            self._asked.discard(stage_id)
            self._pauses.start_over()

    def seconds_left(self) -> float:
        """Return the seconds until the next look."""
        return max(0.0, self._next_look - time.monotonic())

    def take(self) -> list[Stage]:
        """Return the stages to look at again, all of them, if it is time."""
        if not self._stages or self.seconds_left():
            return []
        stages = list(self._stages.values())
        self._stages.clear()
        self._asked.update(stage.stage_id for stage in stages)
        self._pauses.lengthen()
        return stages
