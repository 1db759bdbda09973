"""Execution of a plan; an executor that only says how stages end stands in for workers, and counts the seconds."""

import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.engine.schedule import Schedule
from orchestrator.plan.plan import Plan, missing_stages
from orchestrator.stages.context.failures import FailureClass, Outcome, Status
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.claims import STALE_AFTER
from orchestrator.store.stage import Stage
from tests.orchestrator.sweeps import Quiet, plan_of

FOR_GOOD = 10**9
PATIENCE = STALE_AFTER + 30
MUCH_LATER = 100 * PATIENCE


class Told:
    """Ends every stage as it is told; time passes only while nothing is in flight.

    Attributes:
        capacity: stages that may be in flight.
        elsewhere: until when other runs compute stages, by stage.
        failing: how stages fail, one attempt after the other.
        begun: every attempt as (stage, attempt, halvings).
        looks: when stages were found to be computed by others.
        timeouts: how long it was to wait.
        before_waiting: called whenever an outcome is asked for.
        now: seconds that have passed.
    """

    def __init__(self, plan: Plan, store: ArtifactStore, *, capacity: int = 1) -> None:
        self.capacity = capacity
        self.store = store
        self.elsewhere: dict[str, float] = {}
        self.failing: dict[str, list[FailureClass]] = {}
        self.begun: list[tuple[str, int, int]] = []
        self.looks: list[tuple[str, float]] = []
        self.timeouts: list[float | None] = []
        self.before_waiting: Callable[[], object] = lambda: None
        self.now = 0.0
        self.told_to_stop = False
        self._waiting: deque[Stage] = deque()

    @property
    def submitted(self) -> list[str]:
        return [stage_id for stage_id, _, _ in self.begun]

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def submit(self, stage: Stage, attempt: int, halvings: int) -> None:
        missing = [needed for needed in stage.needs() if not self.store.has(*needed)]
        assert not missing, "a stage is given out before its inputs are finished"
        assert len(self._waiting) < self.capacity
        self.begun.append((stage.stage_id, attempt, halvings))
        self._waiting.append(stage)

    def stop(self) -> None:
        self.told_to_stop = True

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome] | None:
        self.timeouts.append(timeout)
        self.before_waiting()
        if not self._waiting:
            assert timeout is not None, "waits for good with nothing in flight"
            self.now += timeout
            assert self.now < MUCH_LATER, "waits for what never ends"
            return None
        stage = self._waiting.popleft()
        if failures := self.failing.get(stage.stage_id):
            return stage, Outcome(Status.FAILED, failures.pop(0), "told to fail")
        if self.elsewhere.get(stage.stage_id, 0.0) > self.now:
            self.looks.append((stage.stage_id, self.now))
            return stage, Outcome(Status.BUSY)
        self.store.publish(stage, {}, {})
        return stage, Outcome(Status.FINISHED)

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def plan() -> Plan:
    return plan_of()


@pytest.fixture
def executor(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told(plan, ArtifactStore(tmp_path))
    for module in ("schedule", "elsewhere"):
        monkeypatch.setattr(f"orchestrator.engine.{module}.time", SimpleNamespace(monotonic=lambda: told.now))
    return told


def schedule_of(plan: Plan, executor: Told, *, leave_after: float | None = None) -> Schedule:
    missing = missing_stages(plan, executor.store)
    return Schedule(plan, executor.store, executor, Quiet(), missing, leave_after=leave_after)


def captures(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.stages if stage.kind == "capture"]


def test_every_stage_is_given_out_once_and_after_its_inputs(plan: Plan, executor: Told) -> None:
    executor.capacity = 3
    report = schedule_of(plan, executor).run()
    assert sorted(executor.submitted) == sorted(stage.stage_id for stage in plan.stages)
    assert (report.computed, report.failures, report.blocked) == (len(plan.stages), [], 0)
    assert (report.open, report.stopped, report.left) == (0, False, False)
    assert set(executor.timeouts) == {None}, "with nothing computed elsewhere there is nothing to look for"


def test_stages_of_another_run_are_looked_at_again_while_workers_are_busy(plan: Plan, executor: Told) -> None:
    executor.capacity = 2
    executor.elsewhere = {stage.stage_id: 1.0 for stage in captures(plan)}
    report = schedule_of(plan, executor).run()
    assert report.computed == len(plan.stages)
    assert any(timeout is not None for timeout in executor.timeouts), "waits for good although a stage may be done"


# --- failures


def test_a_lost_worker_costs_an_attempt_and_wrong_input_the_stage(plan: Plan, executor: Told) -> None:
    lost, wrong = (stage for stage in captures(plan) if stage.parameters.start == 0)
    executor.failing = {lost.stage_id: [FailureClass.WORKER] * 3, wrong.stage_id: [FailureClass.INPUT]}
    report = schedule_of(plan, executor).run()
    assert executor.submitted.count(lost.stage_id) == 4
    assert executor.submitted.count(wrong.stage_id) == 1
    (failure,) = report.failures
    assert failure.stage is wrong
    needing = {stage.stage_id for stage in plan.stages if (wrong.kind, wrong.stage_id) in stage.needs()}
    assert report.blocked >= len(needing) > 0
    assert report.computed + report.blocked + 1 == len(plan.stages)
    assert report.open == 0
    assert not needing & set(executor.submitted), "a stage that cannot have its inputs was given out"


@pytest.mark.parametrize(
    ("failure", "attempts"),
    [
        (FailureClass.INPUT, 1),
        (FailureClass.CODE, 1),
        (FailureClass.MEMORY, 3),
        (FailureClass.WORKER, 4),
        (FailureClass.NODE, 6),
    ],
)
def test_each_class_of_failure_has_its_budget(failure: FailureClass, attempts: int, plan: Plan, executor: Told) -> None:
    first = plan.stages[0]
    executor.failing = {first.stage_id: [failure] * 100}
    report = schedule_of(plan, executor).run()
    assert executor.submitted == [first.stage_id] * attempts
    assert [attempt for _, attempt, _ in executor.begun] == list(range(1, attempts + 1))
    assert [(each.stage, each.failure) for each in report.failures] == [(first, failure)]
    assert report.blocked == len(plan.stages) - 1


def test_only_a_stage_that_ran_out_of_memory_is_tried_with_smaller_batches(plan: Plan, executor: Told) -> None:
    first = plan.stages[0]
    executor.failing = {
        first.stage_id: [FailureClass.NODE, FailureClass.MEMORY, FailureClass.WORKER, FailureClass.MEMORY]
    }
    report = schedule_of(plan, executor).run()
    assert [halvings for stage, _, halvings in executor.begun if stage == first.stage_id] == [0, 0, 1, 1, 2]
    assert {halvings for stage, _, halvings in executor.begun if stage != first.stage_id} == {0}
    assert report.computed == len(plan.stages)


def test_failures_of_one_class_leave_the_budget_of_the_others(plan: Plan, executor: Told) -> None:
    budgets = {FailureClass.MEMORY: 2, FailureClass.WORKER: 3, FailureClass.NODE: 5}
    first = plan.stages[0]
    executor.failing = {first.stage_id: [failure for failure, times in budgets.items() for _ in range(times)]}
    report = schedule_of(plan, executor).run()
    assert report.computed == len(plan.stages)
    assert executor.submitted.count(first.stage_id) == 11


# --- stopping


@contextmanager
def stopped_by(number: signal.Signals, schedule: Schedule) -> Iterator[None]:
    before = signal.signal(number, lambda *_: schedule.stop())
    try:
        yield
    finally:
        signal.signal(number, before)


def test_a_signal_ends_the_run_after_what_is_in_flight(plan: Plan, executor: Told) -> None:
    executor.capacity = 3
    schedule = schedule_of(plan, executor)
    seen: list[int] = []

    def signalled() -> None:
        if not seen and executor.in_flight == 3:
            signal.raise_signal(signal.SIGUSR2)
            seen.append(len(executor.begun))

    executor.before_waiting = signalled
    with stopped_by(signal.SIGUSR2, schedule):
        report = schedule.run()
    assert seen == [len(executor.begun)], "a stage was begun after the signal"
    assert (report.stopped, report.left) == (True, False)
    assert report.computed == len(executor.begun), "a stage in flight was not waited for"
    assert report.open == len(plan.stages) - report.computed > 0
    assert schedule_of(plan, executor).run().computed == report.open, "the next run does the rest"


def test_a_run_that_waits_for_others_stops_at_once(plan: Plan, executor: Told) -> None:
    executor.elsewhere = {plan.stages[0].stage_id: FOR_GOOD}
    schedule = schedule_of(plan, executor)
    executor.before_waiting = lambda: schedule.stop() if executor.now > 10 else None
    report = schedule.run()
    assert executor.now < 15
    assert (report.stopped, report.computed, report.open) == (True, 0, len(plan.stages))


def test_a_stopping_run_waits_for_what_is_in_flight_without_asking_again_and_again(plan: Plan, executor: Told) -> None:
    executor.capacity = 2
    executor.elsewhere = {captures(plan)[0].stage_id: FOR_GOOD}
    schedule = schedule_of(plan, executor)
    asked: list[int] = []

    def stop() -> None:
        if executor.looks and executor.in_flight == 2:
            schedule.stop()
            executor.now += 60  # so that it would be time to look again
            asked.append(len(executor.timeouts))

    executor.before_waiting = stop
    schedule.run()
    assert executor.timeouts[asked[0] :] == [None]


def test_what_is_open_after_a_stop_does_not_count_what_failures_block(plan: Plan, executor: Told) -> None:
    wrong, *others = captures(plan)
    executor.failing = {wrong.stage_id: [FailureClass.INPUT]}
    schedule = schedule_of(plan, executor)
    executor.before_waiting = lambda: schedule.stop() if others[0].stage_id in executor.submitted else None
    report = schedule.run()
    assert len(report.failures) == 1
    assert report.blocked > 0
    assert report.open > 0
    assert report.computed + 1 + report.blocked + report.open == len(plan.stages)
    rest = schedule_of(plan, executor)
    executor.failing = {wrong.stage_id: [FailureClass.INPUT]}
    assert rest.run().computed == report.open


# --- leaving what others are computing


def test_a_run_leaves_the_last_stages_to_those_that_are_computing_them(plan: Plan, executor: Told) -> None:
    last = plan.solves[-1].stage
    executor.elsewhere = {last.stage_id: FOR_GOOD}
    report = schedule_of(plan, executor, leave_after=PATIENCE).run()
    assert (report.left, report.stopped, report.open) == (True, False, 1)
    assert report.computed == len(plan.stages) - 1
    assert PATIENCE <= executor.now < PATIENCE + 5


def test_a_run_without_such_patience_waits_for_the_others(plan: Plan, executor: Told) -> None:
    executor.elsewhere = {plan.solves[-1].stage.stage_id: 10 * PATIENCE}
    report = schedule_of(plan, executor).run()
    assert (report.left, report.computed) == (False, len(plan.stages))


def test_a_run_stays_while_stages_will_be_ready_once_others_are_done(plan: Plan, executor: Told) -> None:
    executor.elsewhere = {captures(plan)[0].stage_id: 10 * PATIENCE}
    report = schedule_of(plan, executor, leave_after=PATIENCE).run()
    assert (report.left, report.open, report.computed) == (False, 0, len(plan.stages))


def test_what_a_dead_process_held_is_computed_before_the_run_would_leave(plan: Plan, executor: Told) -> None:
    first, *_, last = plan.solves
    executor.elsewhere = {first.stage.stage_id: FOR_GOOD, last.stage.stage_id: STALE_AFTER}
    report = schedule_of(plan, executor, leave_after=PATIENCE).run()
    assert (report.left, report.open) == (True, 1)
    assert missing_stages(plan, executor.store) == [first.stage]
    assert executor.now >= STALE_AFTER + PATIENCE, "it has had something to do since it began to wait"


def test_a_run_leaves_although_failures_block_what_remains(plan: Plan, executor: Told) -> None:
    wrong = captures(plan)[0]
    executor.failing = {wrong.stage_id: [FailureClass.CODE]}
    other = next(
        stage for stage in plan.stages if stage.kind == "gram" and (wrong.kind, wrong.stage_id) not in stage.needs()
    )
    executor.elsewhere = {other.stage_id: FOR_GOOD}
    report = schedule_of(plan, executor, leave_after=PATIENCE).run()
    assert (report.left, report.open, len(report.failures)) == (True, 1, 1)


# --- workers that come and go


def test_workers_may_come_late_and_go_early(plan: Plan, executor: Told) -> None:
    workers = {0: 0, 30: 2, 31: 1}
    asked = 0

    def change() -> None:
        nonlocal asked
        asked += 1
        executor.capacity = workers.get(asked, executor.capacity)
        assert asked > 30 or not executor.begun

    executor.capacity = 0
    executor.before_waiting = change
    report = schedule_of(plan, executor).run()
    assert report.computed == len(plan.stages)
    assert all(timeout and timeout <= 1 for timeout in executor.timeouts[:30]), "it waits for workers, and not for good"


def test_no_stage_is_given_out_while_more_are_in_flight_than_workers_are_left(plan: Plan, executor: Told) -> None:
    executor.capacity = 2

    def shrink() -> None:
        if executor.in_flight == 2:
            executor.capacity = 1  # `submit` holds the schedule to it

    executor.before_waiting = shrink
    assert schedule_of(plan, executor).run().computed == len(plan.stages)


# --- asking the file server


def test_stages_elsewhere_are_looked_at_less_and_less_often_until_one_ends(plan: Plan, executor: Told) -> None:
    first, last = plan.solves[0].stage, plan.solves[-1].stage
    executor.elsewhere = {first.stage_id: 20.0, last.stage_id: 40.0}
    schedule_of(plan, executor).run()
    looks = [when for stage, when in executor.looks if stage == last.stage_id]
    gaps = [round(after - before, 6) for before, after in pairwise(looks)]
    assert gaps[:5] == [0.2, 0.4, 0.8, 1.6, 2.0]
    ended = next(i for i, when in enumerate(looks) if when >= 20.0)
    assert gaps[ended : ended + 5] == [0.2, 0.4, 0.8, 1.6, 2.0], "others may end soon after"
    assert max(gaps) == 2.0


def test_many_stages_elsewhere_are_looked_at_together(executor: Told) -> None:
    plan = plan_of({"grid.seeds": list(range(40))})
    executor.capacity = 4
    executor.elsewhere = {solve.stage.stage_id: 60.0 for solve in plan.solves}
    report = schedule_of(plan, executor).run()
    assert report.computed == len(plan.stages)
    rounds = len({when for _, when in executor.looks})
    assert rounds <= 60 / 2 + 5
    assert len(executor.looks) <= rounds * len(plan.solves)
