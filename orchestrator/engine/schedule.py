"""Schedule of a plan: stages that are ready, waiting, tried again or given up."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.engine.early_tables import EarlyTables
from orchestrator.engine.elsewhere import SHORTEST_PAUSE, Elsewhere
from orchestrator.engine.executors.base import Executor
from orchestrator.engine.open_stages import OpenStages
from orchestrator.engine.order import places
from orchestrator.engine.ready_stages import ReadyStages
from orchestrator.engine.retries import Retries
from orchestrator.errors import StorageError
from orchestrator.plan.plan import Plan
from orchestrator.stages.context.failures import FailureClass, Outcome, Status
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.stage import Stage

logger = logging.getLogger(__name__)

MOST_REPAIRS = 3
"""Most times that a run repeats a stage because its artifact, or an artifact that it reads, is damaged again."""


class Progress(Protocol):
    """Receiver of reports about the progress of a run."""

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None:
        """Report the number of stages of each kind, and of those that are finished already."""

    def advance(self, kind: str) -> None:
        """Report that a stage of a kind is finished."""

    def note(self, message: str) -> None:
        """Report a message that the user should read."""


@dataclass(frozen=True)
class Failure:
    """A stage that was given up, and why."""

    stage: Stage
    failure: FailureClass
    message: str
    trace: str = ""


@dataclass
class Report:
    """Result of a run over a plan.

    Attributes:
        computed: stages that this run finished.
        failures: stages that were given up.
        blocked: stages that need one of those.
        open: stages that are neither finished, given up nor blocked: none, unless the run stopped or left.
        stopped: whether the run was told to stop.
        left: whether the run left what is open to the runs that are computing it.
    """

    computed: int = 0
    failures: list[Failure] = field(default_factory=list)
    blocked: int = 0
    open: int = 0
    stopped: bool = False
    left: bool = False


class Schedule:
    """The run of one process over a plan; other processes may work on the same plan at the same time.

    Args:
        plan: the plan.
        store: its artifacts.
        executor: where stages run; workers of it may come and go meanwhile.
        progress: is told about the progress of the run.
        missing: the stages to compute, inputs before what needs them.
        leave_after: seconds after which to leave the stages that other runs are computing to them, where there has been
            nothing else to do or to wait for. More than `STALE_AFTER`, so that what the dead held is taken over before.
            None waits for as long as it takes.
        out_of_memory: how often stages have run out of memory before, elsewhere.
        tables: writes tables while the run goes on; None leaves them to the end.
        workers: number of workers that there will be, on which the order of stages depends.
    """

    def __init__(
        self,
        plan: Plan,
        store: ArtifactStore,
        executor: Executor,
        progress: Progress,
        missing: list[Stage],
        *,
        leave_after: float | None = None,
        out_of_memory: Mapping[str, int] | None = None,
        tables: EarlyTables | None = None,
        workers: int = 1,
    ) -> None:
        self._store = store
        self._executor = executor
        self._progress = progress
        self._leave_after = leave_after
        self._tables = tables
        self._stages = {stage.stage_id: stage for stage in plan.stages}
        self._open = OpenStages()
        self._ready = ReadyStages(self._open.add(missing), places(plan, missing, workers))
        self._elsewhere = Elsewhere()
        self._retries = Retries(out_of_memory or {})
        self._repairs: dict[tuple[str, str], int] = {}
        self._counted: set[str] = set()
        self._in_flight = 0
        self._most_workers = 0
        self._nothing_to_do_since: float | None = None
        self._report = Report()

    def stop(self) -> None:
        """Begin no further stage; `run` returns once what is in flight has ended. Signal handlers may call it."""
        self._report.stopped = True
        self._executor.stop()

    def run(self) -> Report:
        """Compute until every stage is finished, given up or blocked by one that was, or until told to stop or leave.

        Raises:
            StorageError: nothing more can be written.
        """
        while self._goes_on():
            self._fill()
            ended = self._next_outcome()
            if ended is not None:
                self._ended(*ended)
            if self._in_flight + len(self._ready) < self._executor.capacity:
                self._ready.add(self._elsewhere.take())
        given_up = self._given_up()
        self._report.blocked = len(given_up) - len(self._report.failures)
        self._report.open = len(self._open) - len(given_up)
        return self._report

    def _next_outcome(self) -> tuple[Stage, Outcome] | None:
        if self._tables is None or not self._tables.are_due():
            return self._executor.next_outcome(self._patience())
        ended = self._executor.next_outcome(0.0)  # workers that are idle get something to do first
        self._tables.write()
        return ended

    def _goes_on(self) -> bool:
        if self._in_flight:
            return True
        if self._report.stopped or not (self._ready or self._elsewhere):
            return False
        self._report.left = self._leave_after is not None and self._has_waited(self._leave_after)
        return not self._report.left

    def _has_waited(self, seconds: float) -> bool:
        """Tell whether `seconds` passed with nothing to do and no stage that will be ready later."""
        if self._ready:
            return False  # perhaps only to check whether other runs are still computing their stages
        given_up = self._given_up()
        if any(stage_id not in given_up and stage_id not in self._elsewhere for stage_id in self._open):
            self._nothing_to_do_since = None
            return False
        if self._nothing_to_do_since is None:
            self._nothing_to_do_since = time.monotonic()
        return time.monotonic() - self._nothing_to_do_since >= seconds

    def _patience(self) -> float | None:
        """Return the seconds to wait for a stage in flight until there may be something else to do."""
        if self._elsewhere and self._in_flight < self._executor.capacity and not self._report.stopped:
            return self._elsewhere.seconds_left()
        return None if self._in_flight else SHORTEST_PAUSE

    def _given_up(self) -> set[str]:
        """Return the stages that were given up, and all stages that need one of them."""
        return self._open.with_readers(failure.stage.stage_id for failure in self._report.failures)

    def _fill(self) -> None:
        self._most_workers = max(self._most_workers, self._executor.capacity)
        while self._ready and self._in_flight < self._executor.capacity and not self._report.stopped:
            if (stage := self._ready.take()) is None:
                return
            self._begin(stage)

    def _begin(self, stage: Stage) -> None:
        attempt, halvings = self._retries.attempt(stage.stage_id), self._retries.halvings(stage.stage_id)
        self._executor.submit(stage, attempt, halvings)
        self._in_flight += 1

    def _go_on_with(self, key: str) -> None:
        """Begin the next stage of a key in the place of one that has ended, before its worker gets another kind."""
        if not self._report.stopped and (stage := self._ready.take_with_key(key)) is not None:
            self._begin(stage)

    def _ended(self, stage: Stage, outcome: Outcome) -> None:
        self._in_flight -= 1
        self._ready.ended(stage, elsewhere=outcome.status is Status.BUSY)
        if outcome.status is not Status.BUSY:
            self._elsewhere.ended(stage.stage_id)
        if outcome.status not in (Status.BUSY, Status.EXISTING):
            self._nothing_to_do_since = None
        handlers: dict[Status, Callable[[Stage, Outcome], None]] = {
            Status.FINISHED: self._finished,
            Status.EXISTING: self._finished,
            Status.BUSY: lambda stage, _: self._elsewhere.add(stage),
            Status.LEFT: lambda stage, _: self._ready.add([stage]),
            Status.DAMAGED_INPUT: self._repair,
            Status.FAILED: self._failed,
        }
        handlers[outcome.status](stage, outcome)
        if stage.together is not None and outcome.status is not Status.BUSY:
            self._go_on_with(stage.together.key)

    def _finished(self, stage: Stage, outcome: Outcome) -> None:
        self._report.computed += outcome.status is Status.FINISHED
        if self._tables is not None:
            self._tables.finished(stage)
        if stage.stage_id not in self._counted:
            self._counted.add(stage.stage_id)
            self._progress.advance(stage.kind)
        self._ready.add(self._open.finish(stage))

    def _failed(self, stage: Stage, outcome: Outcome) -> None:
        failure = outcome.failure or FailureClass.CODE
        if failure is FailureClass.STORAGE:
            raise StorageError(outcome.message)
        if self._retries.failed(stage.stage_id, failure):
            how = " with half the batch" if failure is FailureClass.MEMORY else ""
            self._progress.note(f"{stage.kind} {stage.stage_id}: {failure}; trying again{how}")
            logger.info("%s %s: %s; trying again%s: %s", stage.kind, stage.stage_id, failure, how, outcome.message)
            self._ready.add([stage])
        else:
            logger.info("%s %s is given up: %s: %s", stage.kind, stage.stage_id, failure, outcome.message)
            self._report.failures.append(Failure(stage, failure, outcome.message, outcome.trace))

    def _repair(self, stage: Stage, outcome: Outcome) -> None:
        """Set a damaged input aside, and compute it again with its own inputs, then the stage that found it."""
        if outcome.damaged is None:
            raise AssertionError("a damaged input has a name")
        kind, stage_id = outcome.damaged
        found = (stage.stage_id, stage_id)
        self._repairs[found] = self._repairs.get(found, 0) + 1
        # Each worker may have it open from before the repair, and finds it damaged once.
        if self._repairs[found] > MOST_REPAIRS + self._most_workers:
            message = f"{outcome.message}; it was computed again and again: check the disk"
            self._report.failures.append(Failure(stage, FailureClass.STORAGE, message))
            return
        if stage_id not in self._open:
            if not self._store.is_intact(kind, stage_id):  # another run may have repaired it already
                self._progress.note(outcome.message)
                logger.info("%s %s is damaged: set aside, to be computed again", kind, stage_id)
                self._store.set_aside(kind, stage_id)
            again = self._lost(self._stages[stage_id])
            self._counted |= {each.stage_id for each in again}  # they were when they were first finished
            self._ready.add(self._open.add(again))
        self._ready.add(self._open.reopen(stage))

    def _lost(self, stage: Stage) -> list[Stage]:
        """Return a stage and everything below it that is not on disk, inputs first."""
        found: list[Stage] = []
        for _, stage_id in sorted(stage.needs()):
            below = self._stages[stage_id]
            if not self._store.has(below.kind, below.stage_id):
                found.extend(self._lost(below))
        return list({each.stage_id: each for each in [*found, stage]}.values())
