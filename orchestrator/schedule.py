"""Working a plan off: which stage is ready, which waits, which is tried again, which is given up."""

import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.errors import StorageError
from orchestrator.executors.base import Executor
from orchestrator.plan import Plan
from orchestrator.stage import Stage
from orchestrator.stages.execute import FailureClass, Outcome, Status
from orchestrator.stages.registry import KINDS
from orchestrator.store.artifacts import ArtifactStore

ATTEMPTS = {
    FailureClass.INPUT: 1,
    FailureClass.CODE: 1,
    FailureClass.MEMORY: 2,
    FailureClass.STORAGE: 1,
    FailureClass.WORKER: 4,
}
"""How often a stage is begun, by the class of its last failure: wrong input or code fails the same way again."""

MOST_REPAIRS = 3
"""How often a run computes an artifact again that keeps being damaged, or a stage that finds it so."""

POLL_SECONDS = 0.2
"""Pause between looks at stages that another run is computing."""


class Progress(Protocol):
    """Who is told how a run goes."""

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None:
        """Say how many stages of each kind there are, and how many are finished already."""

    def advance(self, kind: str) -> None:
        """Say that a stage of a kind is finished."""

    def note(self, message: str) -> None:
        """Say something that the user should read."""


@dataclass(frozen=True)
class Failure:
    """A stage that was given up, and why."""

    stage: Stage
    failure: FailureClass
    message: str


@dataclass
class Report:
    """How a run over a plan ended.

    Attributes:
        computed: stages that this run finished.
        failures: stages that were given up.
        blocked: stages that need one of those.
    """

    computed: int = 0
    failures: list[Failure] = field(default_factory=list)
    blocked: int = 0


def missing_stages(plan: Plan, store: ArtifactStore, also: Collection[str] = ()) -> list[Stage]:
    """Return the stages of a plan that are not finished but still needed, in the plan's order.

    A stage whose every reader is finished is not needed: a tile that was lost after its kernels were decomposed stays
    lost until a new layer set asks for it. The stages in `also` are needed whoever reads them.
    """
    finished = {kind: store.finished(kind) for kind in KINDS}
    needed: set[str] = {solve.stage.stage_id for solve in plan.solves} | set(also)
    missing = []
    for stage in reversed(plan.stages):
        if stage.stage_id in needed and stage.stage_id not in finished[stage.kind]:
            missing.append(stage)
            needed |= {stage_id for _, stage_id in stage.needs()}
    return missing[::-1]


class Schedule:
    """The run of one process over a plan; other processes may work on the same plan at the same time."""

    def __init__(
        self, plan: Plan, store: ArtifactStore, executor: Executor, progress: Progress, missing: list[Stage]
    ) -> None:
        self._store = store
        self._executor = executor
        self._progress = progress
        self._stages = {stage.stage_id: stage for stage in plan.stages}
        self._readers: dict[str, list[Stage]] = {}
        self._missing_inputs: dict[str, set[str]] = {}
        self._ready: deque[Stage] = deque()
        self._busy: deque[Stage] = deque()
        self._attempts: dict[str, int] = {}
        self._repairs: dict[tuple[str, str], int] = {}
        self._counted: set[str] = set()
        self._open: dict[str, Stage] = {}
        self._in_flight = 0
        self._next_look = 0.0
        self._report = Report()
        self._add(missing)

    def run(self) -> Report:
        """Compute until every stage is finished, given up, or blocked by one that was.

        Raises:
            StorageError: nothing more can be written.
        """
        while self._ready or self._busy or self._in_flight:
            self._fill()
            if self._in_flight:
                ended = self._executor.next_outcome(POLL_SECONDS if self._busy else None)
                if ended is not None:
                    self._ended(*ended)
            else:
                time.sleep(POLL_SECONDS)
            self._look_again()
        self._report.blocked = len(self._open) - len(self._report.failures)
        return self._report

    def _add(self, stages: list[Stage]) -> None:
        new = [stage for stage in stages if stage.stage_id not in self._open]
        self._open |= {stage.stage_id: stage for stage in new}
        for stage in new:
            missing = {stage_id for _, stage_id in stage.needs() if stage_id in self._open}
            self._missing_inputs[stage.stage_id] = missing
            for stage_id in missing:
                self._readers.setdefault(stage_id, []).append(stage)
            if not missing:
                self._ready.append(stage)

    def _fill(self) -> None:
        while self._ready and self._in_flight < self._executor.capacity:
            stage = self._ready.popleft()
            self._executor.submit(stage, self._attempts.get(stage.stage_id, 0) + 1)
            self._in_flight += 1

    def _look_again(self) -> None:
        """Take up the stages that another run was computing, now and then and only where a worker is idle."""
        idle = self._in_flight + len(self._ready) < self._executor.capacity
        if self._busy and idle and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + POLL_SECONDS
            self._ready.extend(self._busy)
            self._busy.clear()

    def _ended(self, stage: Stage, outcome: Outcome) -> None:
        self._in_flight -= 1
        handlers: dict[Status, Callable[[Stage, Outcome], None]] = {
            Status.FINISHED: self._finished,
            Status.EXISTING: self._finished,
            Status.BUSY: lambda stage, _: self._busy.append(stage),
            Status.DAMAGED_INPUT: self._repair,
            Status.FAILED: self._failed,
        }
        handlers[outcome.status](stage, outcome)

    def _finished(self, stage: Stage, outcome: Outcome) -> None:
        self._report.computed += outcome.status is Status.FINISHED
        if stage.stage_id not in self._counted:
            self._counted.add(stage.stage_id)
            self._progress.advance(stage.kind)
        del self._open[stage.stage_id]
        for reader in self._readers.pop(stage.stage_id, []):
            missing = self._missing_inputs[reader.stage_id]
            missing.discard(stage.stage_id)
            if not missing:
                self._ready.append(reader)

    def _failed(self, stage: Stage, outcome: Outcome) -> None:
        failure = outcome.failure or FailureClass.CODE
        if failure is FailureClass.STORAGE:
            raise StorageError(outcome.message)
        attempts = self._attempts[stage.stage_id] = self._attempts.get(stage.stage_id, 0) + 1
        if attempts < ATTEMPTS[failure]:
            self._progress.note(f"{stage.kind} {stage.stage_id}: {failure}; trying again")
            self._ready.append(stage)
        else:
            self._report.failures.append(Failure(stage, failure, outcome.message))

    def _repair(self, stage: Stage, outcome: Outcome) -> None:
        """Set a damaged input aside, compute it again with whatever it needs, then the stage that found it."""
        if outcome.damaged is None:
            raise AssertionError("a damaged input has a name")
        kind, stage_id = outcome.damaged
        found = (stage.stage_id, stage_id)
        self._repairs[found] = self._repairs.get(found, 0) + 1
        # Each worker may have it open from before it was mended, and finds it damaged once.
        if self._repairs[found] > MOST_REPAIRS + self._executor.capacity:
            message = f"{outcome.message}; it was computed again and again: look at the disk"
            self._report.failures.append(Failure(stage, FailureClass.STORAGE, message))
            return
        if stage_id not in self._open:
            if not self._store.is_intact(kind, stage_id):  # another run may have mended it already
                self._progress.note(outcome.message)
                self._store.set_aside(kind, stage_id)
            again = self._lost(self._stages[stage_id])
            self._counted |= {each.stage_id for each in again}  # they were when they were first finished
            self._add(again)
        del self._open[stage.stage_id]
        self._add([stage])

    def _lost(self, stage: Stage) -> list[Stage]:
        """Return a stage and everything below it that is not on disk, inputs first."""
        found: list[Stage] = []
        for _, stage_id in sorted(stage.needs()):
            below = self._stages[stage_id]
            if not self._store.has(below.kind, below.stage_id):
                found.extend(self._lost(below))
        return list({each.stage_id: each for each in [*found, stage]}.values())
